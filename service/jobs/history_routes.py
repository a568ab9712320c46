"""HTTP of what a job leaves behind: events, decisions, attempts, checkpoints, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel
from sqlalchemy.orm import Session

from service.auth import Reader
from service.context import Context
from service.errors import HttpProblem
from service.jobs import repository, service
from service.jobs.schemas import (
    AttemptOut,
    CheckpointOut,
    DecisionOut,
    EvaluationOut,
    EventOut,
    attempt_out,
    checkpoint_out,
    decision_out,
    event_out,
)
from service.jobs.tables import Artifact, Attempt, Checkpoint
from service.listing.filters import ExactFilter, NumberFilter, TimeFilter
from service.listing.query import ListOf, ListQuery, SortField
from service.listing.repository import page
from service.pagination import Cursor, Page
from service.principal import Principal
from service.request_sessions import ReadSession, SessionRoute

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"], route_class=SessionRoute)
AfterSeq = Annotated[int, Query(ge=0, lt=2**31)]
Many = Annotated[int, Query(ge=1, le=1000)]
LOG = "log.txt"
# Files may hold anything a user has put into a class name: shown as what they are, never run in our origin.
HARMLESS = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}, "description": "PNG"}
}


@router.get(
    "/events",
    response_model=Cursor[EventOut],
    summary="Every change of the job: who, when, why",
)
def list_job_events(
    job_id: str, who: Reader, session: ReadSession, after: AfterSeq = 0, limit: Many = 200
) -> dict[str, Any]:
    """Changes of state and edits, oldest first, each with who or what asked for it. `next` is the `after` of the next
    request.
    """
    service.find(session, who, job_id)
    return _after_seq(repository.events_after(session, job_id, after, limit + 1), after, limit, event_out)


@router.get("/decisions", response_model=Cursor[DecisionOut], summary="Every evaluation of every early-stop rule")
def list_job_decisions(
    job_id: str,
    who: Reader,
    session: ReadSession,
    after: AfterSeq = 0,
    limit: Many = 200,
    action: Annotated[Literal["continue", "stop"] | None, Query(description="Only what decided so.")] = None,
) -> dict[str, Any]:
    """Each row has the rule, the numbers it looked at and what it decided, oldest first. `next` is the `after` of the
    next request. `action=stop` finds what ended the job without reading all the others.
    """
    service.find(session, who, job_id)
    rows = repository.decisions_after(session, job_id, after, limit + 1, action)
    return _after_seq(rows, after, limit, decision_out)


def _after_seq(rows: Sequence[Any], after: int, limit: int, out: Callable[[Any], BaseModel]) -> dict[str, Any]:
    """A page of a log from up to `limit + 1` rows."""
    shown = rows[:limit]
    following = shown[-1].seq if shown else after
    return {"data": [out(row) for row in shown], "has_more": len(rows) > limit, "next": following}


ATTEMPTS = ListOf(
    Attempt.fence,
    AttemptOut,
    sorts=[SortField("attempt", Attempt.fence)],
    filters=[
        ExactFilter("outcome", Attempt.outcome, max_length=40),
        TimeFilter("started_at", Attempt.started_at),
        TimeFilter("finished_at", Attempt.finished_at),
    ],
    default_sort="attempt",
    default_limit=200,
)


@router.get("/attempts", response_model=Page[AttemptOut], summary="Each worker's go at the job, the first one first")
def list_job_attempts(
    job_id: str, who: Reader, session: ReadSession, query: Annotated[ListQuery, Depends(ATTEMPTS.query)]
) -> Response:
    """An attempt is one run on one worker. A row says when it began and ended, how it ended, and from which step it
    went on.
    """
    service.find(session, who, job_id)
    return query.respond(page(session, query, Attempt.job_id == job_id), attempt_out)


CHECKPOINTS = ListOf(
    Checkpoint.id,
    CheckpointOut,
    sorts=[SortField("created_at", Checkpoint.id)],
    filters=[
        NumberFilter("attempt", Checkpoint.fence),
        NumberFilter("step", Checkpoint.step),
        NumberFilter("epoch", Checkpoint.epoch),
        TimeFilter("created_at", Checkpoint.created_at),
    ],
    default_limit=200,
)


@router.get("/checkpoints", response_model=Page[CheckpointOut], summary="Stored checkpoints, newest first")
def list_job_checkpoints(
    job_id: str, who: Reader, session: ReadSession, query: Annotated[ListQuery, Depends(CHECKPOINTS.query)]
) -> Response:
    """Step, epoch, size and digest of each checkpoint that is kept. A job goes on from the newest one."""
    service.find(session, who, job_id)
    return query.respond(page(session, query, Checkpoint.job_id == job_id), checkpoint_out)


@router.get(
    "/evaluation",
    response_model=EvaluationOut,
    summary="Metrics of the held-out test part",
)
def get_job_evaluation(job_id: str, who: Reader, session: ReadSession) -> dict[str, Any]:
    """Metrics of the kept model on the test part; for a classifier by class as well, with the confusion matrix. `split`
    says which part it was: without a test part it is validation, else training. 404 (`no_evaluation`) while the job has
    none.
    """
    job = service.find(session, who, job_id)
    if job.investigation_of is not None:
        hint = f"GET /v1/jobs/{job_id}/diagnosis shows what it found."
        raise HttpProblem(404, "no_evaluation", f"The job is an investigation and keeps no model to evaluate. {hint}")
    if job.evaluation is None:
        detail = f"The job is {job.state} and has no evaluation (no test part, or no end)."
        raise HttpProblem(404, "no_evaluation", detail)
    return job.evaluation


def stored_artifact(session: Session, context: Context, who: Principal, job_id: str, name: str) -> Artifact | None:
    """Return the job's file of that name; None when it is not stored. Raises a 404 problem for an unknown job."""
    service.find(session, who, job_id)
    artifact = repository.artifact(session, job_id, name)
    return artifact if artifact is not None and context.storage.exists(artifact.storage_key) else None


def file_response(context: Context, artifact: Artifact) -> FileResponse:
    """Answer with a stored file."""
    path = context.storage.local_path(artifact.storage_key)
    return FileResponse(path, media_type=artifact.media_type, headers=HARMLESS)
