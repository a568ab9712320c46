"""JSON merge patches (RFC 7396): how a spec is changed by what differs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any


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
    gone = {key: None for key in old if key not in new} if isinstance(old, Mapping) else {}
    return {**gone, **new}
