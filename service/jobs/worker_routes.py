"""HTTP of workers, and of the jobs that they train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from sqlalchemy import Row

from service.auth import Reader
from service.jobs import repository as jobs
from service.jobs.states import State
from service.listing.filters import ExactFilter, TimeFilter
from service.listing.in_memory import page_of
from service.listing.query import ListOf, ListQuery, SortField
from service.pagination import Page
from service.principal import Principal
from service.request_sessions import ReadSession, SessionRoute
from service.response_model import ResponseModel
from service.timestamps import Timestamp
from service.workers.names import worker_alias
from service.workers.repository import alive
from service.workers.tables import Worker

router = APIRouter(prefix="/v1", tags=["workers"], route_class=SessionRoute)


class WorkerJob(ResponseModel):
    """A job that a worker trains now."""

    id: str
    name: str | None
    state: State


class WorkerOut(ResponseModel):
    """A worker that has been seen lately."""

    id: str
    """An alias for all but the operator."""
    host: str | None
    """Null for all but the operator, as is `pid`."""
    pid: int | None
    queues: list[str]
    slots: int
    busy_slots: int
    """Slots that train a job, of any project."""
    jobs: list[WorkerJob]
    """The jobs of the project that it trains now, the oldest first."""
    device: str
    versions: dict[str, str]
    started_at: Timestamp
    seen_at: Timestamp


WORKERS = ListOf(
    Worker.id,
    WorkerOut,
    sorts=[SortField("started_at", Worker.started_at, "time")],
    filters=[ExactFilter("device", Worker.device, max_length=40), TimeFilter("started_at", Worker.started_at)],
    default_sort="started_at",
)


@router.get("/workers", response_model=Page[WorkerOut], summary="Workers seen lately, the longest running first")
def list_workers(who: Reader, session: ReadSession, query: Annotated[ListQuery, Depends(WORKERS.query)]) -> Response:
    """Workers that were heard of in the last 30 seconds, each with its queues, slots, device, and the jobs of the project
    that it trains. Host and process id are shown to the operator only.
    """
    # a cursor has the alias in it: the id is the operator's to know
    found = page_of(query, alive(session), lambda worker: worker_alias(worker.id))
    held: dict[str, list[Row[Any]]] = {worker.id: [] for worker in found.rows}
    for job in jobs.held_by(session, held):
        held[job.lease_owner].append(job)
    return query.respond(found, lambda worker: _worker_out(worker, held[worker.id], who))


def _worker_out(worker: Worker, held: Sequence[Row[Any]], who: Principal) -> WorkerOut:
    shown = [WorkerJob(id=job.id, name=job.name, state=job.state) for job in held if job.project_id == who.project_id]
    columns = {column.key: getattr(worker, column.key) for column in Worker.__table__.columns}
    return _visible(WorkerOut(**columns, busy_slots=len(held), jobs=shown), who)


def _visible(worker: WorkerOut, who: Principal) -> WorkerOut:
    """What the caller may see: the machines behind the workers are the operator's."""
    if who.operator:
        return worker
    versions = {name: version for name, version in worker.versions.items() if name != "confinement"}
    return worker.model_copy(update={"id": worker_alias(worker.id), "host": None, "pid": None, "versions": versions})
