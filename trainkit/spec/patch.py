"""JSON merge patches (RFC 7396): how a spec is changed by what differs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from trainkit.spec.problems import pointer_tokens


def merge_patch(target: Any, patch: Any) -> Any:
    """`target` changed by a JSON merge patch: objects are merged, null removes, all else replaces (RFC 7396)."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def replacing(old: Any, new: Mapping[str, Any]) -> dict[str, Any]:
    """The patch that makes `new` of the object `old`: what `new` does not have is removed, not merged."""
    removed = {key: None for key in old if key not in new} if isinstance(old, Mapping) else {}
    return {**removed, **new}


def with_value(document: Any, pointer: str, value: Any) -> Any:
    """`document` with `value` at a JSON pointer (RFC 6901); objects on the way are made, places in lists must be there.

    Raises KeyError with the first pointer that leads nowhere.
    """
    path = pointer_tokens(pointer)
    changed = copy.deepcopy(document)
    place = changed
    for depth, token in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(place, list) and token.isdecimal() and int(token) < len(place):
            key: Any = int(token)
        elif isinstance(place, dict) and (token in place or not token.isdecimal()):
            key = token
        else:
            raise KeyError("/" + "/".join(pointer.split("/")[1 : depth + 2]))
        if last:
            place[key] = copy.deepcopy(value)
        elif isinstance(place, dict):
            place = place.setdefault(key, {})
        else:
            place = place[key]
    return changed
