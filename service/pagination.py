"""The form of lists on the wire. What a list can be asked for is declared with `service/listing`."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import BaseModel

T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    """One page of a list."""

    data: list[T]
    has_more: bool
    next: str | None
    """The `after` of the next page; null on the last one."""


class Cursor(BaseModel, Generic[T]):
    """Rows of a log after a seq."""

    data: list[T]
    has_more: bool
    next: int
    """The `after` to go on with, also when more rows are still to come: the last seq of this page."""


NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "Nothing new since the ETag"}}
