"""The text of entries: canonical JSON, what is shown of a value, and the hash that chains one entry to the next."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from math import isfinite
from typing import Any

FIRST_HASH = "0" * 64
"""`previous_hash` of the first entry of all."""
MAX_VALUE_BYTES = 1000
"""Longest JSON of a value that is shown whole; of a longer one its SHA-256 is."""
HASH = "hash"


def canonical(value: Any) -> str:
    """Return JSON with sorted keys, without blanks, in ASCII: the same value is the same text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def hash_of(document: str) -> str:
    """Return the SHA-256 of an entry's canonical JSON, which holds the hash of the entry before."""
    return hashlib.sha256(document.encode("ascii")).hexdigest()


def hash_of_exported(entry: Mapping[str, Any]) -> str:
    """Return the hash that an exported entry must have: that of all its other fields."""
    return hash_of(canonical({name: value for name, value in entry.items() if name != HASH}))


def time_text(at: datetime) -> str:
    """Return RFC 3339 in UTC with milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def shown(value: Any) -> Any:
    """Return a value as entries show it: plain JSON, or `{sha256, bytes}` of what is long."""
    value = _plain(value)
    text = canonical(value)
    if len(text) <= MAX_VALUE_BYTES:
        return value
    return {"sha256": hash_of(text), "bytes": len(text)}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
