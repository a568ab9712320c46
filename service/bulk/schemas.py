"""Wire format of actions on many jobs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from service.labels import LabelsPatch
from service.request_model import RequestModel
from service.response_model import ResponseModel

MOST_JOBS = 1000
Outcome = Literal["changed", "unchanged", "refused", "not_found"]
FilterValue = Annotated[str, Field(max_length=300)] | int | float | bool
FilterName = Annotated[str, Field(min_length=1, max_length=100)]
JobId = Annotated[str, Field(min_length=1, max_length=64)]


class BulkIn(RequestModel):
    """Which jobs: those named, or those that a filter of the list finds."""

    ids: list[JobId] | None = Field(None, min_length=1, max_length=MOST_JOBS)
    filter: dict[FilterName, FilterValue | list[FilterValue]] | None = Field(None, min_length=1, max_length=32)
    """As the query of `GET /v1/jobs`: `{"state": ["queued", "running"], "label.team": "vision"}`, the newest jobs first."""
    after: str | None = Field(None, min_length=1, max_length=2000)
    """With `filter`: `next` of the answer before."""
    dry_run: bool = False
    """Only tell what would become of each job; change nothing."""

    @model_validator(mode="after")
    def either_ids_or_filter(self) -> BulkIn:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("name the jobs either in `ids` or by a `filter`")
        if self.after is not None and self.filter is None:
            raise ValueError("`after` goes with `filter`: leave it out, and send only the ids that are left")
        return self


class BulkStopIn(BulkIn):
    """Which jobs to stop, and how."""

    keep: Literal["best", "last"] = "best"
    """Which weights the models keep."""


class BulkLabelIn(BulkIn):
    """Which jobs to label."""

    labels: LabelsPatch
    """Labels to set, and null for those to remove."""


class BulkResultOut(ResponseModel):
    """What became of one job, or would."""

    id: str
    outcome: Outcome
    """`changed`; `unchanged`: it is like that already; `refused`: see `code`; `not_found` in this project."""
    code: str | None
    """Of what was refused or not found: the code of the problem that the job's own route would have answered with."""
    detail: str


class BulkOut(ResponseModel):
    """A result for each job, in the order of the request or of the list."""

    data: list[BulkResultOut]
    counts: dict[Outcome, int]
    has_more: bool
    """Whether jobs are left that were not looked at."""
    next: str | None
    """Of a filter: send it as `after` to go on. Of `ids`, send again those without a result."""
    dry_run: bool
