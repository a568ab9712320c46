"""HTTP of jobs: look, stop, cancel, pause, resume, fork, retry."""

from __future__ import annotations

import time
from operator import itemgetter
from typing import Annotated, Any, get_args
from urllib.parse import urlencode

from anyio import to_thread
from fastapi import APIRouter, Body, Depends, Header, Query, Request, Response
from sqlalchemy.orm import Session

from service.auth import Reader, Writer
from service.conditional_requests import require_match, tag_matches, tagged
from service.context import Service
from service.database import reading
from service.errors import HttpProblem
from service.event_stream import EventStream, stream_of
from service.jobs import repository, service
from service.jobs.editing import edit
from service.jobs.list_stream import LIST_EVENTS, LastEventId, follow, parse_event_id, read_rows
from service.jobs.schemas import ForkIn, JobOut, JobPatch, JobRow, ResumeIn, StopIn, job_columns, job_out, job_row
from service.jobs.states import ENDED, State
from service.jobs.tables import Job
from service.listing.filters import (
    ChoiceFilter,
    CreatedFilter,
    ExactFilter,
    LabelFilter,
    MetricFilter,
    TextFilter,
    TimeFilter,
)
from service.listing.query import MAX_LIMIT, Fields, ListOf, ListQuery, SortField, json_response
from service.load_shedding import leave_work
from service.pagination import NOT_MODIFIED, Page
from service.registry.names import MAX_REFERENCE
from service.request_sessions import SessionRoute, WriteSession
from trainkit.spec.metrics import BEST_METRICS

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
        SortField("started_at", Job.started_at, "time", nullable=True),
        SortField("finished_at", Job.finished_at, "time", nullable=True),
        SortField("metrics.best.", Job.metrics_best, "number", nullable=True, known=BEST_METRICS),
    ],
    filters=[
        ChoiceFilter("state", Job.state, choices=get_args(State)),
        ExactFilter("stop_reason", Job.stop_reason, max_length=40),
        TextFilter("name", Job.name),
        ExactFilter("group", Job.group_name, "Jobs of that group; an experiment's is its id."),
        ExactFilter("investigation_of", Job.investigation_of, "Investigations of that job.", max_length=40),
        ExactFilter(
            "dataset",
            Job.dataset_id,
            "Jobs that train on that dataset: its id, `name:version` or `name@alias`; a name alone is every version.",
            max_length=MAX_REFERENCE,
        ),
        LabelFilter(column=Job.labels),
        MetricFilter(column=Job.metrics_best, known=BEST_METRICS),
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


Wait = Annotated[
    float,
    Query(
        ge=0,
        le=25,
        allow_inf_nan=False,
        description="Seconds to wait for an answer with another ETag than those of `If-None-Match`; 304 when none has come.",
    ),
]
IfMatch = Annotated[str | None, Header(description="ETag of the job as the client has seen it.")]
IfNoneMatch = Annotated[str | None, Header(description="ETags of answers that the client has.")]


@router.get("", response_model=Page[JobRow], responses=NOT_MODIFIED, summary="List jobs, newest first")
async def list_jobs(
    request: Request,
    who: Reader,
    context: Service,
    query: Annotated[ListQuery, Depends(JOBS.query)],
    wait: Wait = 0,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """With `wait` and `If-None-Match` the answer comes as soon as the list is another one."""

    def read() -> Response:
        fields = query.shown_fields
        columns = [getattr(Job, name) for name in job_columns(fields)]
        with reading(context.sessions) as session:
            found = repository.listing(session, who.project_id, query, columns)
            datasets = repository.datasets_of(session, found.rows)
        return tagged(query.respond(found, lambda row: job_row(row, datasets[row.dataset_id], fields)))

    response = await to_thread.run_sync(read)
    if not wait or not tag_matches(if_none_match, response.headers["etag"]):
        return response
    deadline = time.monotonic() + wait
    leave_work()
    with context.job_watcher.lists.watching(who.project_id, query, list_key(request), read_rows) as watch:
        known = -1
        while tag_matches(if_none_match, response.headers["etag"]) and (left := deadline - time.monotonic()) > 0:
            # the first news is the watch's own first look: what came since `read` is not missed
            if not await watch.changed(known, left):
                break
            known = watch.number
            response = await to_thread.run_sync(read)
    return response


def list_key(request: Request) -> str:
    """Return all that a list depends on beside its project."""
    given = [(name, value) for name, value in request.query_params.multi_items() if name != "wait"]
    return urlencode(sorted(given))


JOB_STREAM = JOBS.with_limit(MAX_LIMIT)


@router.get(
    "/stream",
    response_class=EventStream,
    responses={
        200: {"content": stream_of(LIST_EVENTS), "description": "The stream"},
    },
    summary="Jobs of a list as they change (SSE)",
)
async def stream_jobs(
    request: Request,
    who: Reader,
    context: Service,
    query: Annotated[ListQuery, Depends(JOB_STREAM.query)],
    last_event_id: LastEventId = None,
) -> Response:
    """The filters, `fields` and `limit` (left out: 1000) of `GET /v1/jobs`: the newest jobs that match.

    Events: `sync` with the ids that are in the list, so that a client drops all others; `jobs` with rows that are new or
    have changed; `left` with ids that are no longer in it. Send the last id as `Last-Event-ID` to go on without loss.
    """
    since = parse_event_id(last_event_id)
    if query.after is not None:
        detail = "A stream has no pages: leave `after` out. `Last-Event-ID` goes on with an earlier stream."
        error = {"pointer": "query/after", "code": "unknown_parameter", "message": "a stream has no pages"}
        raise HttpProblem(422, "invalid_request", detail, errors=[{**error, "hint": "Leave it out."}])
    return EventStream(follow(context.job_watcher.lists, who.project_id, query, list_key(request), since))


@router.get("/{job_id}", response_model=JobOut, responses=NOT_MODIFIED, summary="One job")
async def get_job(
    job_id: str,
    who: Reader,
    context: Service,
    fields: Fields = None,
    wait: Wait = 0,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """With `wait` and `If-None-Match` the answer comes as soon as the job is another one."""

    def read() -> tuple[Response, bool]:
        with reading(context.sessions) as session:
            job = service.find(session, who, job_id)
            shown = out(session, job)
        response = tagged(json_response(shown, fields))
        return response, job.state in ENDED or not tag_matches(if_none_match, response.headers["etag"])

    response, _ = await context.job_watcher.look_until(job_id, read, itemgetter(1), wait)
    return response


@router.patch("/{job_id}", response_model=JobOut, summary="Change a job's name, labels or notes")
def update_job(job_id: str, who: Writer, session: WriteSession, body: JobPatch, if_match: IfMatch = None) -> JobOut:
    """In any state. The events tell what was changed by whom, before and after; `spec` stays as it was submitted.

    With `If-Match` only while the job is as that answer showed it. Progress and metrics of a running job count as well.
    """
    if if_match is not None:
        job = service.find_locked(session, who, job_id)
        require_match(if_match, tagged(json_response(out(session, job), None)).headers["etag"], "job")
    return out(session, edit(session, who, job_id, body))


@router.post("/{job_id}/stop", response_model=JobOut, summary="End training gracefully, keep a usable model")
def stop_job(job_id: str, who: Writer, session: WriteSession, body: Annotated[StopIn | None, Body()] = None) -> JobOut:
    """The worker ends after the current step, evaluates, and keeps a model with the best or the last weights. The
    answer shows the job in state `stopping`; a job that never ran is cancelled instead, and one that has ended stays as
    it ended.

    With `if_seq`, 409 when newer metrics have come than the client has seen.
    """
    body = body or StopIn()
    return out(session, service.stop(session, who, job_id, body.keep, body.if_seq))


@router.post("/{job_id}/cancel", response_model=JobOut, summary="End now, keep nothing")
def cancel_job(job_id: str, who: Writer, session: WriteSession) -> JobOut:
    """A waiting or paused job is `cancelled` at once; a running one when its worker has heard of it. No model is kept.
    Safe to repeat: a job that has ended stays as it ended.
    """
    return out(session, service.cancel(session, who, job_id))


@router.post("/{job_id}/pause", response_model=JobOut, summary="Write a checkpoint and let the worker go")
def pause_job(job_id: str, who: Writer, session: WriteSession) -> JobOut:
    """A running job writes a checkpoint and frees its worker: first `pausing`, then `paused`. A queued job is paused at
    once. 409 for a job that has ended, is being stopped or waits for its dataset's check.
    """
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
    """A paused job is queued again, with 200. Of a job that has ended, a new job goes on from its last checkpoint, with
    201: the old one stays as it ended. `extra_epochs` trains longer than the spec says.

    409 while the job runs or pauses and cannot go on, when all epochs are trained and none are added, or when the
    checkpoints are gone.
    """
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
    """Creates a job that goes on from this one's newest checkpoint, with `patch` merged into its spec (RFC 7396). 409
    when there is no checkpoint; 422 for changes that a checkpoint cannot go on with, such as another model.
    """
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
    """Creates a job with the same spec, which begins without a checkpoint. 409 while this one has not ended."""
    job, new = service.retry(session, context, who, job_id, idempotency_key)
    return created(session, response, job, new=new)


def created(session: Session, response: Response, job: Job, *, new: bool) -> JobOut:
    """The answer that a job was made: 201 with its place, or that the same request has made it before."""
    response.status_code = 201
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    if not new:
        response.headers["Idempotency-Replayed"] = "true"
    return out(session, job)
