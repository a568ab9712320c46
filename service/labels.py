"""Labels and notes of jobs and models, as clients edit them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from service.errors import HttpProblem

MAX_LABELS, MAX_NOTES = 32, 10_000
LabelsPatch = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=500)] | None],
    Field(max_length=2 * MAX_LABELS),
]
"""Labels to set, and None for those to remove (RFC 7396)."""


def merged_labels(labels: Mapping[str, str], patch: Mapping[str, str | None]) -> dict[str, str]:
    """Return the labels after a merge patch. Raises a 422 problem where there would be too many."""
    merged = {key: value for key, value in {**labels, **patch}.items() if value is not None}
    if len(merged) > MAX_LABELS:
        message = f"that makes {len(merged)} labels; the limit is {MAX_LABELS}"
        item = {"pointer": "/labels", "code": "too_many_labels", "message": message, "hint": "Remove some with null."}
        raise HttpProblem(422, "too_many_labels", f"/labels: {message}", errors=[item])
    return merged
