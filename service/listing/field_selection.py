"""Sparse fieldsets: `fields=id,state,metrics.best` answers with these fields of each row and no others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel

from service.listing.filters import BadFilterError
from trainkit.spec.synonyms import nearest

FieldTree: TypeAlias = dict[str, "FieldTree | None"]
"""Name -> the fields below it, None for all of it. A name may end with `*`: `metrics.best.val_*`."""
MAX_FIELDS = 100


def field_tree(text: str, model: type[BaseModel]) -> FieldTree:
    """Parse `fields=`. Raises BadFilterError for a field that the model does not have."""
    paths = list(dict.fromkeys(part.strip() for part in text.split(",")))
    if len(paths) > MAX_FIELDS:
        raise BadFilterError("fields", "too_many_values", f"{len(paths)} fields", f"Name at most {MAX_FIELDS}.")
    tree: FieldTree = {}
    for path in paths:
        _check(path, model)
        _add(tree, path.split("."))
    return tree


def _add(tree: FieldTree, parts: list[str]) -> None:
    name, *rest = parts
    if not rest or tree.get(name, {}) is None:
        tree[name] = None
        return
    inner = tree.setdefault(name, {})
    assert inner is not None
    _add(inner, rest)


def _check(path: str, model: type[BaseModel]) -> None:
    known = dict(_members(model))
    place = ""
    annotation: Any = model
    for name in path.split("."):
        fields = _fields(annotation)
        if fields is None or not name:
            break
        if not fields:
            return  # an object whose members are not declared may have any
        if name not in fields:
            wrong = f"{place}{name}"
            hint = nearest(path, known) or f"Known: {', '.join(sorted(fields))}."
            raise BadFilterError("fields", "unknown_field", f'there is no field "{wrong[:80]}"', hint)
        annotation, place = fields[name], f"{place}{name}."
    else:
        return
    hint = f"Known: {', '.join(sorted(_fields(model) or ()))}."
    raise BadFilterError("fields", "unknown_field", f'there is no field "{path[:80]}"', hint)


def _fields(annotation: Any) -> dict[str, Any] | None:
    """Return name -> annotation of an object's members; {} where any may be there, None for what is no object."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        for one in get_args(annotation):
            if (found := _fields(one)) is not None:
                return found
        return None
    if annotation is Any or annotation is dict or get_origin(annotation) is dict:
        return {}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {
            field.serialization_alias or field.alias or name: field.annotation
            for name, field in annotation.model_fields.items()
        }
    return None


def _members(annotation: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in (_fields(annotation) or {}).items():
        yield f"{prefix}{name}", inner
        if prefix.count(".") < 3:
            yield from _members(inner, f"{prefix}{name}.")


def selected(value: Any, tree: FieldTree) -> Any:
    """Return those fields of an object that the tree names; what is no object comes as it is."""
    if not isinstance(value, Mapping):
        return value
    found: dict[str, Any] = {}
    for name, inner in tree.items():
        if name.endswith("*"):
            found.update({key: one for key, one in value.items() if key.startswith(name[:-1])})
        elif name in value:
            found[name] = value[name] if inner is None else selected(value[name], inner)
    return found
