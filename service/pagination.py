"""Lists: newest first, cut by `limit`, continued by `after` (the last id seen). Ids sort by time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query, Request
from pydantic import BaseModel

from service.errors import HttpProblem

T = TypeVar("T")
Limit = Annotated[int, Query(ge=1, le=200, description="How many, at most 200.")]
After = Annotated[str | None, Query(max_length=64, description="Continue after this id (`next` of the last page).")]
MOST_LABELS = 32
LABEL = "label."
"""Beginning of the query parameters that select by a label: `label.team=vision`."""


def label_filter(request: Request) -> dict[str, str]:
    """The labels that are asked for. Raises a 422 problem for a name that no label has."""
    labels = {key[len(LABEL) :]: value for key, value in request.query_params.items() if key.startswith(LABEL)}
    if any(not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", key) for key in labels):
        raise HttpProblem(422, "bad_label", "A label's name has letters, digits, and _ . - only.")
    if len(labels) > MOST_LABELS:
        raise HttpProblem(422, "too_many_labels", f"A job has at most {MOST_LABELS} labels: ask for no more.")
    return labels


Labels = Annotated[dict[str, str], Depends(label_filter)]


class Page(BaseModel, Generic[T]):
    """One page of a list."""

    data: list[T]
    has_more: bool
    next: str | None


class Listing(BaseModel, Generic[T]):
    """A list that is short enough to come whole."""

    data: list[T]


class Cursor(BaseModel, Generic[T]):
    """What comes after a seq; `next` is the seq to go on from."""

    data: list[T]
    next: int


NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "Nothing new since the ETag"}}


def page(rows: Sequence[Any], limit: int, wire: Any) -> dict[str, Any]:
    """A page from up to `limit + 1` rows: the extra one tells that there is more."""
    shown = rows[:limit]
    more = len(rows) > limit
    return {"data": [wire(row) for row in shown], "has_more": more, "next": shown[-1].id if more else None}
