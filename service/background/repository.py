"""SQL of housekeeping that spans resources: expired leases, unheard work, retention, files without a row."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, func, or_, select, true, tuple_, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.database import db_now, rows_changed
from service.datasets.repository import UNREADY
from service.datasets.tables import DatasetVersion
from service.inference_requests.tables import InferenceRequest
from service.jobs.retention_status import Part
from service.jobs.states import ACTIVE, ENDED, WITH_WORKER
from service.jobs.tables import Artifact, Checkpoint, IdempotencyKey, Job, JobEvent
from service.leases import Claim
from service.logs.tables import LogChunk
from service.metrics.tables import MetricChunk, MetricSuperseded
from service.models.tables import Model

LOG_FILE = "log.txt"
STOPPABLE = tuple(sorted(ACTIVE - {"stopping"}))
STORAGE_KEYS: dict[str, InstrumentedAttribute[Any]] = {
    "checkpoints": Checkpoint.storage_key,
    "artifacts": Artifact.storage_key,
    "models": Model.storage_key,
}
"""Folder in storage -> the column that names its files."""


def expired_leases(session: Session, limit: int) -> Sequence[str]:
    """Return ids of jobs whose worker has not renewed its lease in time."""
    return session.scalars(select(Job.id).where(*_lease_expired()).limit(limit)).all()


def lock_expired(session: Session, job_id: str) -> Job | None:
    """Lock the job; None when its lease has been renewed or released since."""
    expired = select(Job).where(Job.id == job_id, *_lease_expired()).with_for_update()
    return session.scalars(expired).one_or_none()


def _lease_expired() -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return Job.state.in_(WITH_WORKER), Job.lease_expires_at < db_now()


LEASED: dict[str, Any] = {"train": Job, "data": DatasetVersion, "predict": InferenceRequest}
"""Queue -> table of the work that its workers hold leases of."""


def held_leases(session: Session) -> list[tuple[str, Claim, str]]:
    """Return (queue, claim, identity of the owner's process) of all leases that are held."""
    held = []
    for queue, table in LEASED.items():
        rows = select(table.id, table.fence, table.lease_process).where(*_is_held(table))
        held += [(queue, Claim(row.id, row.fence), str(row.lease_process)) for row in session.execute(rows)]
    return held


def lock_held(session: Session, claim: Claim) -> Job | None:
    """Lock the job; None when that claim is not its newest any more, or was released."""
    held = select(Job).where(Job.id == claim.id, Job.fence == claim.fence, *_is_held(Job)).with_for_update()
    return session.scalars(held).one_or_none()


def end_lease(session: Session, queue: str, claim: Claim) -> bool:
    """End the lease of a dataset or an inference request now; False when that claim is not the newest any more."""
    table = LEASED[queue]
    held = _update(table).where(table.id == claim.id, table.fence == claim.fence, *_is_held(table))
    ended = held.values(lease_expires_at=db_now(plus=-1.0), lease_process=None).returning(table.id)
    return session.scalars(ended).first() is not None


def _is_held(table: Any) -> tuple[ColumnElement[bool], ...]:
    states = {Job: WITH_WORKER, DatasetVersion: UNREADY, InferenceRequest: ("queued",)}[table]
    return table.state.in_(states), table.lease_process.is_not(None), table.lease_expires_at >= db_now()


def unstopped_jobs(session: Session, project_id: str, limit: int) -> list[str]:
    """Return ids of the project's jobs that have not ended and are not asked to."""
    # what a queued job is asked to do is to stop, once a worker has restored it
    not_stopped = or_(Job.state != "queued", Job.requested_action.is_(None))
    going_on = select(Job.id, Job.requested_action).where(Job.project_id == project_id, Job.state.in_(STOPPABLE))
    rows = session.execute(going_on.where(not_stopped).limit(limit))
    return [row.id for row in rows if (row.requested_action or {}).get("action") not in ("stop", "cancel")]


def has_future_times(session: Session, lease_seconds: float, pause_seconds: float) -> bool:
    """Whether `shorten_leases` or `end_long_pauses` would change a row."""
    leases = [select(table.id).where(table.lease_expires_at > db_now(plus=lease_seconds)) for table in LEASED.values()]
    pauses = select(Job.id).where(Job.not_before > db_now(plus=pause_seconds))
    return any(session.scalar(found.limit(1)) is not None for found in (*leases, pauses))


def shorten_leases(session: Session, beyond_seconds: float, lease_seconds: float) -> None:
    """Let leases that end later than `beyond_seconds` from now end in `lease_seconds`."""
    for table in LEASED.values():
        too_late = table.lease_expires_at > db_now(plus=beyond_seconds)
        session.execute(_update(table).where(too_late).values(lease_expires_at=db_now(plus=lease_seconds)))


def end_long_pauses(session: Session, beyond_seconds: float) -> None:
    """Make jobs due whose pause ends later than `beyond_seconds` from now."""
    session.execute(_update(Job).where(Job.not_before > db_now(plus=beyond_seconds)).values(not_before=None))


def checked_datasets_with_waiting_jobs(session: Session) -> Sequence[str]:
    """Return ids of datasets whose check has ended while jobs wait for it."""
    waiting = select(Job.dataset_id).join(DatasetVersion, DatasetVersion.id == Job.dataset_id)
    waiting = waiting.where(Job.state == "validating", DatasetVersion.state.in_(("ready", "invalid")))
    return session.scalars(waiting.distinct()).all()


def queues_with_due_work(session: Session) -> set[str]:
    """Return the queues in which work waits that a worker could begin now. One row of each is read."""
    due = or_(Job.not_before.is_(None), Job.not_before <= db_now())
    queues = set()
    queue = session.scalar(select(func.min(Job.queue)).where(Job.state == "queued"))
    while queue is not None:
        if session.scalar(select(Job.id).where(Job.state == "queued", Job.queue == queue, due).limit(1)) is not None:
            queues.add(queue)
        queue = session.scalar(select(func.min(Job.queue)).where(Job.state == "queued", Job.queue > queue))
    for table, states, name in (
        (DatasetVersion, UNREADY, "data"),
        (InferenceRequest, ("queued",), "predict"),
    ):
        free = or_(table.lease_expires_at.is_(None), table.lease_expires_at < db_now())
        if session.scalar(select(table.id).where(table.state.in_(states), free).limit(1)) is not None:
            queues.add(name)
    return queues


def _update(table: Any) -> Any:
    return update(table).execution_options(synchronize_session=False)


def delete_idempotency_keys(session: Session, older_than_seconds: float, limit: int) -> int:
    """Delete up to `limit` keys of requests that nobody repeats any more; returns how many."""
    key = (IdempotencyKey.project_id, IdempotencyKey.key)
    old = select(*key).where(IdempotencyKey.created_at < db_now(plus=-older_than_seconds))
    deleted = delete(IdempotencyKey).where(tuple_(*key).in_(old.limit(limit)))
    return rows_changed(session.execute(deleted))


def ended_jobs(
    session: Session, project_id: str, days: float, after: tuple[datetime, str] | None, limit: int
) -> Sequence[Row[str, datetime | None]]:
    """Return (id, finished_at) of the project's jobs that ended more than `days` ago, in the order of their ends.

    Args:
        after: end and id of the last one of the previous page; None: from the beginning.
    """
    columns = select(Job.id, Job.finished_at).where(Job.project_id == project_id)
    due = columns.where(Job.finished_at < db_now(plus=-days * 86400.0))
    if after is not None:
        due = due.where(Job.finished_at >= after[0], (Job.finished_at > after[0]) | (Job.id > after[1]))
    return session.execute(due.order_by(Job.finished_at, Job.id).limit(limit)).all()


def with_part(session: Session, job_ids: Collection[str], part: Part | None, kept: int) -> Sequence[str]:
    """Return those of the jobs that still have that part (None: all), beyond `kept` checkpoints, in their order."""
    found = set(session.scalars(select(Job.id).where(Job.id.in_(job_ids), _has_part(part, kept))))
    return [job_id for job_id in job_ids if job_id in found]


def _has_part(part: Part | None, kept: int) -> ColumnElement[bool]:
    if part == "checkpoints":
        count = select(func.count()).where(Checkpoint.job_id == Job.id).correlate(Job).scalar_subquery()
        return count > kept
    if part == "logs":
        file = select(Artifact.job_id).where(Artifact.job_id == Job.id, Artifact.name == LOG_FILE)
        return or_(select(LogChunk.job_id).where(LogChunk.job_id == Job.id).exists(), file.exists())
    if part == "metrics":
        return select(MetricChunk.job_id).where(MetricChunk.job_id == Job.id).exists()
    return true()


def lock_ended(session: Session, job_id: str) -> Job | None:
    """Lock the job; None when it is not there or has not ended."""
    return session.scalars(select(Job).where(Job.id == job_id, Job.state.in_(ENDED)).with_for_update()).one_or_none()


def delete_checkpoints(session: Session, job_id: str, kept: int) -> list[str]:
    """Delete all but the newest `kept` checkpoints; returns their storage keys."""
    newest_first = select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.id.desc())
    older = session.scalars(newest_first.offset(kept)).all()
    for checkpoint in older:
        session.delete(checkpoint)
    return [checkpoint.storage_key for checkpoint in older]


def delete_logs(session: Session, job: Job) -> tuple[int, list[str]]:
    """Delete the log of a locked job; returns (lines, storage keys of its file)."""
    lines = select(func.sum(LogChunk.last_seq - LogChunk.first_seq + 1)).where(LogChunk.job_id == job.id)
    count = int(session.scalar(lines) or 0)
    session.execute(delete(LogChunk).where(LogChunk.job_id == job.id))
    job.log_bytes = 0
    file = session.get(Artifact, (job.id, LOG_FILE))
    if file is None:
        return count, []
    session.delete(file)
    return count, [file.storage_key]


def delete_metrics(session: Session, job: Job) -> int:
    """Delete the metric log of a locked job; returns how many rows it had."""
    rows = select(func.sum(MetricChunk.last_seq - MetricChunk.first_seq + 1)).where(MetricChunk.job_id == job.id)
    count = int(session.scalar(rows) or 0)
    for table in (MetricChunk, MetricSuperseded):
        session.execute(delete(table).where(table.job_id == job.id))
    job.metric_bytes = 0
    return count


def add_retention_event(session: Session, job: Job, at: datetime, reason: str, counts: dict[str, int]) -> None:
    """Append the event that tells what was deleted."""
    session.add(
        JobEvent(
            job_id=job.id,
            seq=job.next_event_seq,
            at=at,
            kind="retention",
            actor="housekeeping",
            reason=reason,
            data=counts,
        )
    )
    job.next_event_seq += 1
    session.flush()


def active_jobs(session: Session, job_ids: Collection[str]) -> set[str]:
    """Return those of the jobs that have not ended."""
    return set(session.scalars(select(Job.id).where(Job.id.in_(job_ids), Job.state.in_(ACTIVE))))


def known_keys(session: Session, folder: str, job_ids: Collection[str], keys: Collection[str]) -> set[str]:
    """Return those of the storage keys that a row of these jobs names; `folder` is one of STORAGE_KEYS.

    Models are found by the key alone: they outlive their job.
    """
    column = STORAGE_KEYS[folder]
    named = select(column).where(column.in_(keys))
    if folder != "models":
        named = named.where(column.class_.job_id.in_(job_ids))
    return set(session.scalars(named))
