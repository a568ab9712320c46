"""HTTP of jobs: look, stop, cancel, pause, resume, fork, retry."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Request, Response
from sqlalchemy.orm import Session

from service.auth import Reader, Writer
from service.context import Service
from service.errors import HttpProblem
from service.jobs import repository, service
from service.jobs.schemas import ForkIn, JobOut, ResumeIn, StopIn, job_out
from service.jobs.states import State
from service.jobs.tables import Job
from service.pagination import NOT_MODIFIED, After, Labels, Limit, Page
from service.request_sessions import ReadSession, SessionRoute, WriteSession

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=SessionRoute)
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]
CREATED: dict[int | str, dict[str, Any]] = {
    201: {"model": JobOut, "description": "A new job goes on from where that one ended."}
}


def out(session: Session, job: Job) -> JobOut:
    """The job with its dataset."""
    return job_out(job, repository.datasets_of(session, [job])[job.dataset_id])


@router.get("", response_model=Page[JobOut], summary="List jobs, newest first")
def list_jobs(
    who: Reader,
    labels: Labels,
    session: ReadSession,
    limit: Limit = 50,
    after: After = None,
    state: Annotated[list[State] | None, Query(description="One or more states.")] = None,
    dataset: str | None = None,
    group: Annotated[
        str | None, Query(max_length=200, description="Jobs of that group; an experiment's is its id.")
    ] = None,
    updated_after: datetime | None = None,
) -> dict[str, Any]:
    if updated_after is not None:
        try:
            updated_after = updated_after.replace(tzinfo=updated_after.tzinfo or UTC).astimezone(UTC)
        except OverflowError:  # the year 1 in another time zone
            raise HttpProblem(422, "bad_time", f"{updated_after.isoformat()} is not a time in UTC.") from None
    filters = (state or (), labels, updated_after, dataset, group)
    rows = repository.listing(session, who.project_id, limit, after, *filters)
    datasets = repository.datasets_of(session, rows)
    shown = rows[:limit]
    more = len(rows) > limit
    data = [job_out(row, datasets[row.dataset_id]) for row in shown]
    return {"data": data, "has_more": more, "next": shown[-1].id if more else None}


@router.get("/{job_id}", response_model=JobOut, responses=NOT_MODIFIED, summary="One job")
def get_job(
    job_id: str,
    request: Request,
    response: Response,
    who: Reader,
    session: ReadSession,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Any:
    job = service.find(session, who, job_id)
    tag = f'W/"{job.id}:{job.updated_at.timestamp():.6f}:{job.next_event_seq}:{job.next_seq}"'
    if if_none_match == tag:
        return Response(status_code=304, headers={"ETag": tag})
    response.headers["ETag"] = tag
    response.headers["Cache-Control"] = "no-cache"
    return job_out(job, repository.datasets_of(session, [job])[job.dataset_id])


@router.post("/{job_id}/stop", response_model=JobOut, summary="End training gracefully, keep a usable model")
def stop_job(job_id: str, who: Writer, session: WriteSession, body: Annotated[StopIn | None, Body()] = None) -> JobOut:
    body = body or StopIn()
    return out(session, service.stop(session, who, job_id, body.keep, body.if_seq))


@router.post("/{job_id}/cancel", response_model=JobOut, summary="End now, keep nothing")
def cancel_job(job_id: str, who: Writer, session: WriteSession) -> JobOut:
    return out(session, service.cancel(session, who, job_id))


@router.post("/{job_id}/pause", response_model=JobOut, summary="Write a checkpoint and let the worker go")
def pause_job(job_id: str, who: Writer, session: WriteSession) -> JobOut:
    return out(session, service.pause(session, who, job_id))


@router.post(
    "/{job_id}/resume",
    response_model=JobOut,
    responses=CREATED,
    summary="Go on: the paused job itself, or a new job from where one has ended",
)
def resume_job(
    job_id: str,
    response: Response,
    who: Writer,
    context: Service,
    session: WriteSession,
    body: Annotated[ResumeIn | None, Body()] = None,
    idempotency_key: IdempotencyKey = None,
) -> JobOut:
    extra = (body or ResumeIn()).extra_epochs
    job, new = service.resume(session, context, who, job_id, extra, idempotency_key)
    return created(session, response, job, new=new) if job.id != job_id else out(session, job)


@router.post("/{job_id}/fork", status_code=201, response_model=JobOut, summary="A changed job from a checkpoint")
def fork_job(
    job_id: str,
    response: Response,
    who: Writer,
    context: Service,
    session: WriteSession,
    body: Annotated[ForkIn | None, Body()] = None,
    idempotency_key: IdempotencyKey = None,
) -> JobOut:
    job, new = service.fork(session, context, who, job_id, (body or ForkIn()).patch, idempotency_key)
    return created(session, response, job, new=new)


@router.post(
    "/{job_id}/retry", status_code=201, response_model=JobOut, summary="The same job again, from its beginning"
)
def retry_job(
    job_id: str,
    response: Response,
    who: Writer,
    context: Service,
    session: WriteSession,
    idempotency_key: IdempotencyKey = None,
) -> JobOut:
    job, new = service.retry(session, context, who, job_id, idempotency_key)
    return created(session, response, job, new=new)


def created(session: Session, response: Response, job: Job, *, new: bool) -> JobOut:
    """The answer that a job was made: 201 with its place, or that the same request has made it before."""
    response.status_code = 201
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    if not new:
        response.headers["Idempotency-Replayed"] = "true"
    return out(session, job)
