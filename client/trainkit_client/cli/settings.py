"""`--set optimizer.lr=0.01`: change fields of a spec from the command line."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from trainkit_client.cli.command import CommandError


def changed(
    spec: dict[str, Any], settings: list[str], complete: Callable[[], dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Return the spec with these fields set. Raises CommandError for what is no `FIELD=VALUE`.

    Args:
        spec: The spec as it was written.
        settings: `FIELD=VALUE`.
        complete: Returns the completed spec. `optimizer.lr` of a spec that names no optimizer is that of its default.
    """
    result = copy.deepcopy(spec)
    inside = {
        setting.partition("=")[0].strip().split(".")[0] for setting in settings if "." in setting.partition("=")[0]
    }
    if complete is not None and (left_out := [name for name in inside if result.get(name) is None]):
        completed = complete()
        for name in left_out:
            if isinstance(default := completed.get(name), dict) and "kind" in default:
                result[name] = {"kind": default["kind"]}
    for setting in settings:
        path, mark, text = setting.partition("=")
        if not mark or not path.strip():
            raise CommandError(f"--set takes FIELD=VALUE, such as optimizer.lr=0.01; got {setting!r}.")
        set_field(result, path.strip().split("."), value_of(text), setting)
    return result


def value_of(text: str) -> Any:
    """Return the value of a text as YAML reads it: 0.01, true, null, [1, 2], {kind: sgd}, words."""
    from trainkit_client.documents import read_yaml

    return read_yaml(f"value: {text}" if text.strip() else "value: ''")["value"]


def set_field(document: Any, path: list[str], value: Any, setting: str) -> None:
    """Set a field; objects on the way are created, and a number is an index of a list."""
    holder = document
    for depth, name in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(holder, list):
            if not name.isdigit() or int(name) >= len(holder):
                place = ".".join(path[:depth])
                raise CommandError(f"--set {setting}: {place} is a list of {len(holder)}; {name!r} is no index of it.")
            key: Any = int(name)
        elif isinstance(holder, dict):
            key = name
        else:
            raise CommandError(f"--set {setting}: {'.'.join(path[:depth])} is {holder!r} and has no fields.")
        if last:
            holder[key] = value
        else:
            if isinstance(holder, dict) and not isinstance(holder.get(key), dict | list):
                holder[key] = as_object(holder.get(key))
            holder = holder[key]


def as_object(value: Any) -> dict[str, Any]:
    """Return the object of a value: `mlp` is short for `{kind: mlp}`, and nothing is an empty one."""
    return {"kind": value} if isinstance(value, str) else {}


def patch_of(spec: dict[str, Any], settings: list[str], completed: dict[str, Any]) -> dict[str, Any]:
    """Return a merge patch (RFC 7396) with these fields set; a list in it is whole."""
    after = changed(spec, settings, lambda: completed)
    names = {setting.partition("=")[0].strip().split(".")[0] for setting in settings}
    return {name: merge_patch(spec.get(name), after[name]) for name in names}


def merge_patch(before: Any, after: Any) -> Any:
    """Return what RFC 7396 merges into `before` to give `after`."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    patch = {name: None for name in before if name not in after}
    return patch | {
        name: merge_patch(before.get(name), value) for name, value in after.items() if before.get(name) != value
    }


def flat(document: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a document by their dotted paths; lists of plain values are leaves."""
    if isinstance(document, dict) and document:
        parts = document.items()
    elif isinstance(document, list) and any(isinstance(item, dict) for item in document):
        parts = ((str(number), item) for number, item in enumerate(document))  # type: ignore[assignment]
    else:
        return {prefix: document}
    found: dict[str, Any] = {}
    for name, value in parts:
        found |= flat(value, f"{prefix}.{name}" if prefix else str(name))
    return found
