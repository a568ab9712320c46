"""Spec errors for people: where (JSON pointer), what, and what to do. All of them at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ValidationError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a spec. `code` is stable, `pointer` is RFC 6901."""

    pointer: str
    code: str
    message: str
    hint: str = ""

    def as_dict(self) -> dict[str, str]:
        """The wire form."""
        return asdict(self)


class SpecError(ValueError):
    """A spec that cannot be trained, with every problem found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.pointer or '/'}: {p.message}" for p in self.problems))


def pointer(parts: Iterable[object]) -> str:
    """RFC 6901 JSON pointer of a path; '' is the whole document."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def pointer_tokens(pointer: str) -> list[str]:
    """The steps of an RFC 6901 JSON pointer, unescaped: the inverse of `pointer`."""
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def nearest(word: str, known: Iterable[str]) -> str:
    """`Did you mean "x"?`, or '' when nothing is close."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'Did you mean "{match[0]}"?' if match else ""


def problems_from_validation(error: ValidationError, document: Any, model: type[BaseModel]) -> list[Problem]:
    """Translate pydantic's errors into problems whose pointers address the submitted document."""
    return [_problem(item, document, model) for item in error.errors(include_url=False)]


def _problem(item: Mapping[str, Any], document: Any, model: type[BaseModel]) -> Problem:
    path = _document_path(item["loc"], document)
    kind, message, context = item["type"], item["msg"], item.get("ctx", {})
    where = pointer(path)
    if kind == "extra_forbidden":
        name = str(path[-1]) if path else ""
        known = _known_fields(item["loc"][:-1], model)
        hint = nearest(name, known) or (f"Known fields: {', '.join(sorted(known))}." if known else "Remove it.")
        others = _kinds_with(name, item["loc"][:-1], model)
        if others:  # no typo, but a choice that belongs to another kind, such as spatial dropout in an mlp
            hint = f'"{name}" belongs to {", ".join(others)}. {hint}'
        return Problem(where, "unknown_field", f'unknown field "{name}"', hint)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        expected = [tag for m in _models_at(item["loc"], model) if (tag := _kind_of(m))]
        listing = f"Known kinds: {', '.join(expected)}." if expected else "See /v1/catalog."
        if kind == "union_tag_not_found":
            return Problem(where, "missing_kind", "`kind` is missing", listing)
        tag = str(context.get("tag", ""))
        hint = " ".join(part for part in (nearest(tag, expected), listing) if part)
        return Problem(where + "/kind", "unknown_kind", f'unknown kind "{tag}"', hint)
    if kind == "missing":
        return Problem(where, "missing_field", f'"{path[-1] if path else ""}" is required', "Add it.")
    if kind == "literal_error":
        expected = [word.strip(" '") for word in str(context.get("expected", "")).replace(" or ", ", ").split(",")]
        return Problem(
            where,
            "unknown_value",
            f"{item.get('input')!r} is not one of the choices",
            " ".join(
                part
                for part in (nearest(str(item.get("input")), expected), f"Choices: {', '.join(expected[:40])}.")
                if part
            ),
        )
    hint = _meaning(item["loc"], model)
    if kind == "value_error":
        return Problem(where, "invalid_value", message.removeprefix("Value error, "), hint)
    return Problem(where, kind, message[:1].lower() + message[1:], hint)


def _meaning(loc: Sequence[int | str], model: type[BaseModel]) -> str:
    """What the field at `loc` says of itself, else where its schema stands."""
    names = [step for step in loc if isinstance(step, str)]
    for end in range(len(names), 0, -1):  # tags of unions may follow the field's own name
        for candidate in _models_at(names[: end - 1], model):
            field = candidate.model_fields.get(names[end - 1])
            if field is not None and field.description and end > 1:
                return f"`{names[end - 1]}`: {field.description}"
    return "GET /v1/catalog shows every field's schema."


def _document_path(loc: Sequence[int | str], document: Any) -> list[int | str]:
    """Drop the union tags that pydantic puts into `loc`: keep only steps that exist in the document, and the last."""
    path: list[int | str] = []
    node = document
    for position, step in enumerate(loc):
        last = position == len(loc) - 1
        if isinstance(node, Mapping):
            if step in node:
                path.append(step)
                node = node[step]
            elif last and isinstance(step, str) and not _is_tag(step, node):
                path.append(step)
        elif isinstance(node, Sequence) and not isinstance(node, str) and isinstance(step, int) and step < len(node):
            path.append(step)
            node = node[step]
    return path


def _is_tag(step: str, node: Mapping[str, Any]) -> bool:
    return node.get("kind") == step or "[" in step


def _known_fields(loc: Sequence[int | str], model: type[BaseModel]) -> set[str]:
    """Field names of the sub-model at `loc`."""
    return set().union(*(m.model_fields.keys() for m in _models_at(loc, model)))


def _kinds_with(name: str, loc: Sequence[int | str], model: type[BaseModel]) -> list[str]:
    """The kinds that have the field, of the union whose member stands at `loc`."""
    siblings = _models_at(loc[:-1], model) if loc else []
    return [kind for m in siblings if name in m.model_fields and (kind := _kind_of(m))]


def _models_at(loc: Sequence[int | str], model: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that the document may hold at `loc`, found by walking annotations."""
    models: list[type[BaseModel]] = [model]
    for step in loc:
        if isinstance(step, int):
            continue
        tagged = [m for m in models if _kind_of(m) == step]
        if tagged:
            models = tagged
            continue
        following: list[type[BaseModel]] = []
        for candidate in models:
            field = candidate.model_fields.get(step)
            if field is not None:
                following.extend(_models_in(field.annotation))
        models = following or models
    return models


def _kind_of(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return field.default if field is not None else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models_in(argument)]
