"""SQL of the gauges: counts by index, in one short read session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, text
from sqlalchemy.orm import Session

from service.database import db_now, db_time
from service.datasets.tables import DatasetVersion
from service.inference_requests.tables import InferenceRequest
from service.jobs.states import ACTIVE, ENDED, WITH_WORKER
from service.jobs.tables import Job
from service.uploads.tables import Upload
from service.workers.repository import alive

QUEUE_NAMES = ("train", "data", "predict")
TIMEOUT_MS = 2500


@dataclass
class QueueCounts:
    """Work that waits in one queue, and the workers that serve it."""

    waiting: int = 0
    oldest: float = 0.0
    workers: int = 0
    slots: int = 0

    def add(self, waiting: int, since: datetime | None, now: datetime) -> None:
        self.waiting += waiting
        if since is not None:
            self.oldest = max(self.oldest, (now - since).total_seconds())


@dataclass
class CurrentCounts:
    """Counts that change from second to second."""

    jobs: dict[str, int]
    datasets: dict[str, int]
    queues: dict[str, QueueCounts]
    expired: int
    uploads: int


@dataclass
class TotalCounts:
    """Counts over all rows, which are slow and change slowly."""

    jobs: dict[str, int] = field(default_factory=dict)
    datasets: dict[str, int] = field(default_factory=dict)
    points: int = 0


def set_timeout(session: Session) -> None:
    """Let PostgreSQL cancel the transaction's statements after TIMEOUT_MS."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"SET LOCAL statement_timeout = {TIMEOUT_MS}"))


def current_counts(session: Session) -> CurrentCounts:
    """Count active jobs and datasets, waiting work, live workers, expired leases and open uploads."""
    now = db_time(session)
    queues = {name: QueueCounts() for name in QUEUE_NAMES}
    due = or_(Job.not_before.is_(None), Job.not_before <= db_now())
    queued = select(Job.queue, func.count(), func.min(Job.updated_at)).where(Job.state == "queued", due)
    for name, count, oldest in session.execute(queued.group_by(Job.queue)):
        queues.setdefault(name, QueueCounts()).add(count, oldest, now)
    for table, states, since, name in (
        (DatasetVersion, ("uploading", "validating"), DatasetVersion.updated_at, "data"),
        (InferenceRequest, ("queued",), InferenceRequest.created_at, "predict"),
    ):
        free = or_(table.lease_expires_at.is_(None), table.lease_expires_at < db_now())
        waiting = select(func.count(), func.min(since)).where(table.state.in_(states), free)
        queues[name].add(*session.execute(waiting).one(), now)
    for worker in alive(session):
        for name in worker.queues:
            queue = queues.setdefault(name, QueueCounts())
            queue.workers += 1
            queue.slots += worker.slots
    lost = select(func.count()).where(Job.state.in_(WITH_WORKER), Job.lease_expires_at < db_now())
    open_uploads = select(func.count()).where(Upload.state == "uploading")
    return CurrentCounts(
        jobs=_by_state(session, Job, sorted(ACTIVE)),
        datasets=_by_state(session, DatasetVersion, ("uploading", "validating")),
        queues=queues,
        expired=session.scalar(lost) or 0,
        uploads=session.scalar(open_uploads) or 0,
    )


def total_counts(session: Session) -> TotalCounts:
    """Count ended jobs, checked datasets, and the rows of all metric logs."""
    return TotalCounts(
        jobs=_by_state(session, Job, sorted(ENDED)),
        datasets=_by_state(session, DatasetVersion, ("ready", "invalid")),
        points=_points(session, Job.finished_at.is_not(None)) + _points(session, Job.state.in_(ACTIVE)),
    )


def _points(session: Session, jobs: ColumnElement[bool]) -> int:
    """Sum the rows of the metric logs of those jobs. For ended ones an index holds all that is summed."""
    return int(session.scalar(select(func.sum(Job.next_seq - 1)).where(jobs)) or 0)


def _by_state(session: Session, table: Any, states: Sequence[str]) -> dict[str, int]:
    state: ColumnElement[str] = table.state
    counted = select(state, func.count()).where(state.in_(states)).group_by(state)
    return dict.fromkeys(states, 0) | {name: count for name, count in session.execute(counted).all()}  # noqa: C416
