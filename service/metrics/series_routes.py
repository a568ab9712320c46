"""HTTP of series: of one job, or of several for comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from service.auth import Reader
from service.conditional_requests import tag_matches
from service.errors import HttpProblem
from service.jobs import service as jobs
from service.jobs.retention_status import check_not_purged
from service.jobs.tables import Job
from service.metrics.repository import count_superseded, superseded_ranges
from service.metrics.routes import Names, etag, parse_names
from service.metrics.schemas import AllSeriesOut, JobsSeriesOut, series_wire
from service.metrics.series import SeriesQuery, read_series
from service.pagination import NOT_MODIFIED
from service.request_sessions import ReadSession, SessionRoute
from service.timestamps import rfc3339

router = APIRouter(prefix="/v1", tags=["metrics"], route_class=SessionRoute)
JOBS_A_CALL = 50
POINTS_A_CALL = 200_000
"""Of all series of all jobs of one answer: some ten megabytes."""
JobIds = Annotated[
    str, Query(alias="jobs", max_length=41 * JOBS_A_CALL, description="Comma-separated ids, at most 50.")
]
Step = Annotated[int | None, Query(ge=0, lt=2**62)]


def select_series(
    names: Names = None,
    max_points: Annotated[int, Query(ge=5, le=10_000, description="Of each series.")] = 1000,
    from_step: Step = None,
    to_step: Step = None,
) -> SeriesQuery:
    """Which part of a log is asked for; steps are counted with both ends."""
    if from_step is not None and to_step is not None and from_step > to_step:
        raise HttpProblem(422, "bad_range", f"from_step {from_step} is beyond to_step {to_step}.")
    return SeriesQuery(parse_names(names), max_points, from_step, to_step)


SelectedSeries = Annotated[SeriesQuery, Depends(select_series)]


@router.get(
    "/jobs/{job_id}/metrics/series",
    response_model=AllSeriesOut,
    responses=NOT_MODIFIED,
    summary="Series for plots, down-sampled with extremes kept",
)
def get_job_series(
    job_id: str,
    who: Reader,
    session: ReadSession,
    query: SelectedSeries,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Each series as columns, with at most `max_points` points: minima and maxima are kept, and the same request gives
    the same points. Superseded rows are left out. 410 when retention has removed the log.
    """
    job = jobs.find(session, who, job_id)
    check_not_purged(job, "metrics")
    tag = etag(*log_version(session, job), *parts(query))
    if tag_matches(if_none_match, tag):
        return answer(tag)
    return answer(tag, of_job(job, read_series(session, job_id, query)))


@router.get(
    "/metrics/series",
    response_model=JobsSeriesOut,
    responses=NOT_MODIFIED,
    summary="The same series of several jobs, for comparison",
)
def compare_series(
    who: Reader,
    session: ReadSession,
    query: SelectedSeries,
    job_ids: JobIds,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """For each job its series as columns, with at most `max_points` points each. 422 for more than 50 jobs, or too many
    points in all; 404 where one job is unknown, 410 where the log of one was removed.
    """
    found = [jobs.find(session, who, job_id) for job_id in parse_job_ids(job_ids)]
    for job in found:
        check_not_purged(job, "metrics")
    states = [[job.name, job.state, *log_version(session, job)] for job in found]
    tag = etag(states, *parts(query))
    if tag_matches(if_none_match, tag):
        return answer(tag)
    compared = []
    points = 0
    for job in found:
        series = read_series(session, job.id, query)
        points += sum(len(columns["seq"]) for columns in series.values())
        if points > POINTS_A_CALL:
            detail = f"More than {POINTS_A_CALL} points: ask for fewer jobs, names or max_points."
            raise HttpProblem(422, "too_many_points", detail)
        compared.append({"id": job.id, "name": job.name, "state": job.state, **of_job(job, series)})
    return answer(tag, {"jobs": compared})


def parse_job_ids(text: str) -> list[str]:
    """Return the ids, each once. Raises a 422 problem for none or too many."""
    ids = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not 1 <= len(ids) <= JOBS_A_CALL:
        raise HttpProblem(422, "bad_jobs", f"{len(ids)} jobs were named; name 1 to {JOBS_A_CALL} ids, comma-separated.")
    return ids


def of_job(job: Job, series: Mapping[str, Mapping[str, NDArray[Any]]]) -> dict[str, Any]:
    """Series as JSON has them, with the time from which they count."""
    start = started(job)
    wire = {name: series_wire(columns, start.timestamp()) for name, columns in series.items()}
    return {"start": rfc3339(start), "series": wire}


def log_version(session: Session, job: Job) -> tuple[Any, ...]:
    """What changes whenever the series of a job do."""
    return job.id, job.next_seq, count_superseded(superseded_ranges(session, job.id)), rfc3339(started(job))


def started(job: Job) -> datetime:
    """When the job started, or was created where it has not started."""
    return job.started_at or job.created_at


def parts(query: SeriesQuery) -> tuple[Any, ...]:
    """What an answer depends on, beside the log."""
    return query.names, query.max_points, query.from_step, query.to_step


def answer(tag: str, wire: dict[str, Any] | None = None) -> Response:
    """The body with its ETag, or 304 when the reader has it."""
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if wire is None:
        return Response(status_code=304, headers=headers)
    return Response(json.dumps(wire, allow_nan=False), media_type="application/json", headers=headers)
