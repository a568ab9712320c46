"""HTTP of jobs: look, stop, cancel, pause, resume, fork, retry."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from fastapi import APIRouter, Body, Depends, Header, Request, Response
from sqlalchemy.orm import Session

from service.auth import Reader, Writer
from service.context import Service
from service.jobs import repository, service
from service.jobs.editing import edit
from service.jobs.schemas import ForkIn, JobOut, JobPatch, JobRow, ResumeIn, StopIn, job_columns, job_out, job_row
from service.jobs.states import State
from service.jobs.tables import Job
from service.listing.filters import ChoiceFilter, CreatedFilter, ExactFilter, LabelFilter, TextFilter, TimeFilter
from service.listing.query import ListOf, ListQuery, SortField
from service.pagination import NOT_MODIFIED, Page
from service.registry.names import MAX_REFERENCE
from service.request_sessions import ReadSession, SessionRoute, WriteSession

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=SessionRoute)
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]
CREATED: dict[int | str, dict[str, Any]] = {
    201: {"model": JobOut, "description": "A new job goes on from where that one ended."}
}


def out(session: Session, job: Job) -> JobOut:
    """The job with its dataset."""
    return job_out(job, repository.datasets_of(session, [job])[job.dataset_id])


JOBS = ListOf(
    Job.id,
    JobOut,
    sorts=[
        SortField("created_at", Job.id),
        SortField("name", Job.name),
        SortField("updated_at", Job.updated_at, "time"),
        SortField("finished_at", Job.finished_at, "time", nullable=True),
    ],
    filters=[
        ChoiceFilter("state", Job.state, choices=get_args(State)),
        ExactFilter("stop_reason", Job.stop_reason, max_length=40),
        TextFilter("name", Job.name),
        ExactFilter("group", Job.group_name, "Jobs of that group; an experiment's is its id."),
        ExactFilter(
            "dataset",
            Job.dataset_id,
            "Jobs that train on that dataset: its id, `name:version` or `name@alias`; a name alone is every version.",
            max_length=MAX_REFERENCE,
        ),
        LabelFilter(column=Job.labels),
        CreatedFilter(column=Job.created_at, ids=Job.id, prefix="job"),
        TimeFilter("started_at", Job.started_at),
        TimeFilter("finished_at", Job.finished_at),
        TimeFilter("updated_at", Job.updated_at),
    ],
    default_fields=(
        "id,name,state,stop_reason,error.code,progress.percent,metrics.best.val_*,labels,group,dataset.name,dataset.version,"
        "created_at,finished_at"
    ),
)


@router.get("", response_model=Page[JobRow], summary="List jobs, newest first")
def list_jobs(who: Reader, session: ReadSession, query: Annotated[ListQuery, Depends(JOBS.query)]) -> Response:
    fields = query.shown_fields
    found = repository.listing(session, who.project_id, query, [getattr(Job, name) for name in job_columns(fields)])
    datasets = repository.datasets_of(session, found.rows)
    return query.respond(found, lambda row: job_row(row, datasets[row.dataset_id], fields))


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


@router.patch("/{job_id}", response_model=JobOut, summary="Change a job's name, labels or notes")
def update_job(job_id: str, who: Writer, session: WriteSession, body: JobPatch) -> JobOut:
    """In any state. The events tell what was changed by whom, before and after; `spec` stays as it was submitted."""
    return out(session, edit(session, who, job_id, body))


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
