"""Times on the wire: RFC 3339 in UTC with `Z` and milliseconds, everywhere."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BeforeValidator, PlainSerializer, WithJsonSchema


def rfc3339(at: datetime) -> str:
    """Return `2026-01-31T12:00:00.123Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Timestamp = Annotated[
    datetime,
    PlainSerializer(rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
"""A time in a response. The database's clock has milliseconds too, so what is shown is what is stored."""


def _text_only(value: Any) -> Any:
    """Refuse seconds since 1970, which pydantic takes and the schema does not name."""
    if isinstance(value, str) and not value.strip().lstrip("+-").replace(".", "", 1).isdigit():
        return value
    if isinstance(value, datetime):
        return value
    raise ValueError('write the time with its zone, such as "2026-01-31T12:00:00Z"')


RequestedTime = Annotated[AwareDatetime, BeforeValidator(_text_only, json_schema_input_type=AwareDatetime)]
"""A time in a request: RFC 3339 with a zone."""
