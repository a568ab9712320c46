"""SQL of housekeeping that spans resources: expired leases, unheard work, retention, files without a row."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, func, or_, select, true, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.database import db_now
from service.datasets.repository import UNREADY
from service.datasets.tables import DatasetVersion
from service.inference_requests.tables import InferenceRequest
from service.jobs.retention_status import Part
from service.jobs.states import ENDED, WITH_WORKER
from service.jobs.tables import Artifact, Checkpoint, IdempotencyKey, Job, JobEvent
from service.leases import Claim
from service.logs.tables import LogChunk
from service.metrics.tables import MetricChunk, MetricSuperseded
from service.models.tables import Model

LOG_FILE = "log.txt"
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


def shorten_leases(session: Session, beyond_seconds: float, lease_seconds: float) -> None:
    """Let leases that end later than `beyond_seconds` from now end in `lease_seconds`."""
    for table in (Job, DatasetVersion, InferenceRequest):
        too_late = table.lease_expires_at > db_now(plus=beyond_seconds)
        session.execute(_update(table).where(too_late).values(lease_expires_at=db_now(plus=lease_seconds)))


def clear_future_notifications(session: Session, beyond_seconds: float) -> None:
    """Forget notifications dated later than `beyond_seconds` from now."""
    for table in (Job, DatasetVersion, InferenceRequest):
        session.execute(_update(table).where(table.notified_at > db_now(plus=beyond_seconds)).values(notified_at=None))


def end_long_pauses(session: Session, beyond_seconds: float) -> None:
    """Make queued jobs due whose pause ends later than `beyond_seconds` from now."""
    too_late = Job.not_before > db_now(plus=beyond_seconds)
    session.execute(_update(Job).where(Job.state == "queued", too_late).values(not_before=None))


def checked_datasets_with_waiting_jobs(session: Session) -> Sequence[str]:
    """Return ids of datasets whose check has ended while jobs wait for it."""
    waiting = select(Job.dataset_id).join(DatasetVersion, DatasetVersion.id == Job.dataset_id)
    waiting = waiting.where(Job.state == "validating", DatasetVersion.state.in_(("ready", "invalid")))
    return session.scalars(waiting.distinct()).all()


def mark_unheard(session: Session, after_seconds: float) -> set[str]:
    """Note a notification for all due work that no worker has taken since the last one; returns its queues."""
    due = or_(Job.not_before.is_(None), Job.not_before <= db_now())
    jobs = _update(Job).where(Job.state == "queued", due, _unheard(Job, after_seconds))
    queues = set(session.scalars(jobs.values(notified_at=db_now()).returning(Job.queue)))
    for table, states, queue in (
        (DatasetVersion, UNREADY, "data"),
        (InferenceRequest, ("queued",), "predict"),
    ):
        free = or_(table.lease_expires_at.is_(None), table.lease_expires_at < db_now())
        waiting = _update(table).where(table.state.in_(states), free, _unheard(table, after_seconds))
        if session.scalars(waiting.values(notified_at=db_now()).returning(table.id)).first() is not None:
            queues.add(queue)
    return queues


def _unheard(table: Any, after_seconds: float) -> ColumnElement[bool]:
    return or_(table.notified_at.is_(None), table.notified_at < db_now(plus=-after_seconds))


def _update(table: Any) -> Any:
    return update(table).execution_options(synchronize_session=False)


def delete_idempotency_keys(session: Session, older_than_seconds: float) -> None:
    """Forget keys of requests that nobody repeats any more."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < db_now(plus=-older_than_seconds)))


def ended_jobs(
    session: Session, project_id: str, days: float, part: Part | None, kept: int, after: str, limit: int
) -> Sequence[str]:
    """Return ids of the project's jobs that ended more than `days` ago and still have that part, in order of their ids.

    Args:
        part: what the job must still have; None: any job.
        kept: how many checkpoints stay.
        after: the last id of the previous page.
    """
    old = Job.finished_at < db_now(plus=-days * 86400.0)
    due = select(Job.id).where(Job.project_id == project_id, Job.state.in_(ENDED), old, Job.id > after)
    return session.scalars(due.where(_has_part(part, kept)).order_by(Job.id).limit(limit)).all()


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


def delete_logs(session: Session, job_id: str) -> tuple[int, list[str]]:
    """Delete the job's log; returns (lines, storage keys of its file)."""
    lines = select(func.sum(LogChunk.last_seq - LogChunk.first_seq + 1)).where(LogChunk.job_id == job_id)
    count = int(session.scalar(lines) or 0)
    session.execute(delete(LogChunk).where(LogChunk.job_id == job_id))
    file = session.get(Artifact, (job_id, LOG_FILE))
    if file is None:
        return count, []
    session.delete(file)
    return count, [file.storage_key]


def delete_metrics(session: Session, job_id: str) -> int:
    """Delete the job's metric log; returns how many rows it had."""
    rows = select(func.sum(MetricChunk.last_seq - MetricChunk.first_seq + 1)).where(MetricChunk.job_id == job_id)
    count = int(session.scalar(rows) or 0)
    for table in (MetricChunk, MetricSuperseded):
        session.execute(delete(table).where(table.job_id == job_id))
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
    return set(session.scalars(select(Job.id).where(Job.id.in_(job_ids), Job.state.not_in(ENDED))))


def known_keys(session: Session, folder: str, keys: Collection[str]) -> set[str]:
    """Return those of the storage keys that a row names; `folder` is one of STORAGE_KEYS."""
    column = STORAGE_KEYS[folder]
    return set(session.scalars(select(column).where(column.in_(keys))))
