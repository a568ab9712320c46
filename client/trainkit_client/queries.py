"""Query strings and paths as the service reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote


def query_string(params: Mapping[str, Any]) -> str:
    """Return the query of these parameters: None is left out, lists are joined by commas.

    `labels={"team": "vision"}` becomes `label.team=vision`, and each text of `where`, such as
    `"metric.val_accuracy>=0.9"`, stands for itself.
    """
    parts: list[str] = []
    for name, value in params.items():
        if value is None:
            continue
        if name == "labels" and isinstance(value, Mapping):
            parts += [
                f"{quote(f'label.{label}', safe='')}={quote(str(text), safe='')}" for label, text in value.items()
            ]
        elif name == "where":
            conditions = [value] if isinstance(value, str) else value
            parts += [quote(condition.replace(" ", ""), safe="=") for condition in conditions]
        else:
            parts.append(f"{quote(name, safe='.')}={quote(query_value(value), safe=',:@*')}")
    return "&".join(parts)


def query_value(value: Any) -> str:
    """Return a value as text of a query."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.astimezone()
        return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(query_value(item) for item in value)
    return str(value)


def segment(reference: str) -> str:
    """Return a name or id as one part of a path."""
    return quote(reference, safe="@:")
