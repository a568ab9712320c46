"""All SQL of mirrors."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Text, and_, cast, delete, func, literal, or_, select, update
from sqlalchemy.orm import Session

from service.database import db_now, rows_changed
from service.jobs.tables import Job
from service.leases import Claim
from service.outbox.repository import COPY_BEGINNING, insert_copies
from service.outbox.tables import Mirror, MirroredJob, WebhookCircuit
from service.webhooks.repository import circuit_is_closed

CLAIM_SECONDS = 60.0
"""The claim of a sender that died ends after so long; each request to a mirror takes less and renews it."""
MAX_AHEAD_SECONDS = 8 * 3600.0
"""No attempt is ever due so far ahead: a later time was written before the clock was set back."""
NO_SYNC = {"synchronize_session": False}


def get(session: Session, project_id: str, mirror_id: str, *, lock: bool = False) -> Mirror | None:
    """Return the project's mirror of that id; with `lock` it is locked until the transaction ends."""
    statement = select(Mirror).where(Mirror.id == mirror_id, Mirror.project_id == project_id)
    if lock:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    return session.scalars(statement).one_or_none()


def add(session: Session, mirror: Mirror) -> None:
    """Insert a mirror."""
    session.add(mirror)
    session.flush()


def delete_mirror(session: Session, mirror: Mirror) -> None:
    """Delete a mirror and, by cascade, how far its jobs have come."""
    session.delete(mirror)


def delete_some_jobs(session: Session, mirror_id: str, count: int) -> int:
    """Delete up to `count` rows of a mirror's jobs; returns how many."""
    some = select(MirroredJob.job_id).where(MirroredJob.mirror_id == mirror_id).limit(count)
    rows = delete(MirroredJob).where(MirroredJob.mirror_id == mirror_id, MirroredJob.job_id.in_(some))
    return rows_changed(session.execute(rows.execution_options(**NO_SYNC)))


def count(session: Session, project_id: str) -> int:
    """Count the project's mirrors."""
    return session.scalar(select(func.count()).where(Mirror.project_id == project_id)) or 0


def counts_by_state(session: Session, mirror_ids: Sequence[str]) -> dict[tuple[str, str], int]:
    """Return how many jobs of each mirror are in each state."""
    counted = select(MirroredJob.mirror_id, MirroredJob.state, func.count()).where(
        MirroredJob.mirror_id.in_(mirror_ids)
    )
    grouped = counted.group_by(MirroredJob.mirror_id, MirroredJob.state)
    return {(mirror_id, state): number for mirror_id, state, number in session.execute(grouped)}


def with_tokens(session: Session, after: str, limit: int) -> Sequence[Mirror]:
    """Return mirrors of all projects after an id, locked until the transaction ends."""
    rows = select(Mirror).where(Mirror.id > after).order_by(Mirror.id).limit(limit)
    return session.scalars(rows.with_for_update()).all()


def mirrored_job(session: Session, mirror_id: str, job_id: str, *, lock: bool = False) -> MirroredJob | None:
    """Return how far a job has come in a mirror."""
    one = select(MirroredJob).where(MirroredJob.mirror_id == mirror_id, MirroredJob.job_id == job_id)
    if lock:
        one = one.with_for_update().execution_options(populate_existing=True)
    return session.scalars(one).one_or_none()


def backfill(session: Session, mirror_id: str, job_ids: Sequence[str]) -> None:
    """Have a mirror copy these jobs from their beginning, those that it has copied or given up included."""
    if not job_ids:
        return
    insert_copies(session, [(mirror_id, job_id) for job_id in job_ids])
    again = update(MirroredJob).where(MirroredJob.mirror_id == mirror_id, MirroredJob.job_id.in_(job_ids))
    # the next fence, so that a sender under way with it writes no cursor any more
    session.execute(again.values(**COPY_BEGINNING, fence=MirroredJob.fence + 1).execution_options(**NO_SYNC))


def jobs_to_backfill(session: Session, mirror: Mirror, limit: int) -> Sequence[str]:
    """Return ids of started jobs of the mirror's project that it has not copied yet, and whose metrics are there."""
    copied = select(MirroredJob.job_id).where(MirroredJob.mirror_id == mirror.id, MirroredJob.job_id == Job.id)
    jobs = select(Job.id).where(Job.project_id == mirror.project_id, Job.started_at.is_not(None), ~copied.exists())
    # as text, since paths into JSON differ between the databases; the keys are ours
    has_metrics = or_(Job.purged.is_(None), cast(Job.purged, Text).not_like('%"metrics":%'))
    return session.scalars(jobs.where(has_metrics).order_by(Job.id).limit(limit)).all()


def hasten(session: Session, mirror_id: str) -> None:
    """Make all pending copies of a mirror due now: its address or token has changed."""
    waiting = update(MirroredJob).where(MirroredJob.mirror_id == mirror_id, MirroredJob.state == "pending")
    session.execute(waiting.values(next_attempt_at=db_now(), failures=0).execution_options(**NO_SYNC))


def mirrors_with_due(session: Session) -> Sequence[Row[str, str]]:
    """Return (mirror, project) of active mirrors with due copies, to hosts whose circuit lets them pass."""
    of_host = and_(WebhookCircuit.project_id == Mirror.project_id, WebhookCircuit.host == Mirror.host)
    due = [
        select(literal(1)).where(MirroredJob.mirror_id == Mirror.id, *is_due, _has_news()).exists()
        for is_due in _due_ranges()
    ]
    waiting = select(Mirror.id, Mirror.project_id).outerjoin(WebhookCircuit, of_host)
    return session.execute(waiting.where(Mirror.active, circuit_is_closed(), or_(*due)).order_by(Mirror.id)).all()


def due(session: Session, mirror_id: str, limit: int, busy_jobs: Collection[str]) -> Sequence[tuple[str, int]]:
    """Return (job, fence) of the mirror's due copies, the longest due first."""
    found = []
    for is_due in _due_ranges():
        rows = select(MirroredJob.next_attempt_at, MirroredJob.job_id, MirroredJob.fence).where(
            MirroredJob.mirror_id == mirror_id, *is_due, _has_news(), MirroredJob.job_id.not_in(busy_jobs)
        )
        first = rows.order_by(MirroredJob.next_attempt_at, MirroredJob.job_id).limit(limit)
        found += [(at, job_id, fence) for at, job_id, fence in session.execute(first)]
    return [(job_id, fence) for _, job_id, fence in sorted(found)[:limit]]


def _due_ranges() -> Iterator[tuple[ColumnElement[bool], ...]]:
    """Yield the conditions of pending, free copies whose time is past, and of those that a clock set back has left."""
    next_at, claimed_until = MirroredJob.next_attempt_at, MirroredJob.claimed_until
    is_free = or_(claimed_until.is_(None), claimed_until < db_now(), claimed_until > db_now(plus=10 * CLAIM_SECONDS))
    for in_range in (next_at <= db_now(), next_at > db_now(plus=MAX_AHEAD_SECONDS)):
        yield MirroredJob.state == "pending", in_range, is_free


def _has_news() -> ColumnElement[bool]:
    """Whether the job has rows or events that the mirror does not."""
    behind = or_(Job.next_seq - 1 > MirroredJob.metric_seq, Job.next_event_seq - 1 > MirroredJob.event_seq)
    return select(Job.id).where(Job.id == MirroredJob.job_id, behind).exists()


def claim(session: Session, mirror_id: str, job_id: str, fence: int) -> MirroredJob | None:
    """Claim a due copy for CLAIM_SECONDS and raise its fence; None when another sender has it."""
    is_due = or_(*(and_(*conditions) for conditions in _due_ranges()))
    claimed = update(MirroredJob).where(
        MirroredJob.mirror_id == mirror_id, MirroredJob.job_id == job_id, MirroredJob.fence == fence, is_due
    )
    values = {"fence": fence + 1, "claimed_until": db_now(plus=CLAIM_SECONDS), "last_attempt_at": db_now()}
    if not rows_changed(session.execute(claimed.values(**values).execution_options(**NO_SYNC))):
        return None
    return session.get_one(MirroredJob, (mirror_id, job_id), populate_existing=True)


def mirror_of(session: Session, mirror_id: str) -> Mirror:
    """Return the mirror of a copy."""
    return session.get_one(Mirror, mirror_id)


def save(session: Session, mirror_id: str, claim: Claim, claim_seconds: float | None, **values: Any) -> bool:
    """Write what has arrived, under the claim; False when the claim is stale.

    Args:
        claim_seconds: how much longer the claim holds; None gives it back.
    """
    until = None if claim_seconds is None else db_now(plus=claim_seconds)
    held = update(MirroredJob).where(
        MirroredJob.mirror_id == mirror_id, MirroredJob.job_id == claim.id, MirroredJob.fence == claim.fence
    )
    saved = held.values(claimed_until=until, **values).execution_options(**NO_SYNC)
    return rows_changed(session.execute(saved)) == 1
