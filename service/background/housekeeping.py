"""What must happen though nobody asks: lost workers' jobs, unheard bells, waiting jobs, old rows. Safe to run twice."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session, sessionmaker

from service.database import db_now
from service.datasets.tables import Dataset
from service.inference_requests.repository import sweep
from service.inference_requests.tables import InferenceRequest
from service.jobs import attempts
from service.jobs.service import admit_waiting
from service.jobs.states import WITH_WORKER
from service.jobs.tables import IdempotencyKey, Job
from service.workers.service import forget_old

log = logging.getLogger(__name__)
RING_AGAIN_SECONDS = 3.0
FAR_LEASES, FAR_SECONDS, FAR_RING_SECONDS = 10, 900.0, 60.0
"""No lease, pause or ring is ever set so far ahead; hosts whose clocks differ do no harm, for the database's counts."""
ANSWERS_KEPT_SECONDS = 600.0
KEYS_KEPT_SECONDS = 3 * 86400.0


def tick(
    sessions: sessionmaker[Session],
    ring: Callable[[str], object],
    *,
    max_interruptions: int,
    lease_seconds: float = 30.0,
) -> None:
    """One round. Each step is its own short transaction, so that one failing step does not stop the others."""
    mend_times(sessions, lease_seconds)
    reap(sessions, max_interruptions)
    admit(sessions)
    ring_for_unheard(sessions, ring)
    with sessions.begin() as session:
        sweep(session, ANSWERS_KEPT_SECONDS)
        forget_old(session)
        session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < db_now(plus=-KEYS_KEPT_SECONDS)))


def mend_times(sessions: sessionmaker[Session], lease_seconds: float) -> None:
    """Times so far ahead that only a clock that was set back can have made them: nothing shall wait an hour for it.

    A holder that is alive renews its lease long before the new end.
    """
    far = max(FAR_LEASES * lease_seconds, FAR_SECONDS)
    with sessions.begin() as session:
        for table in (Job, Dataset, InferenceRequest):
            ahead = update(table).execution_options(synchronize_session=False)
            leased = table.lease_expires_at > db_now(plus=far)
            session.execute(ahead.where(leased).values(lease_expires_at=db_now(plus=lease_seconds)))
            session.execute(ahead.where(table.notified_at > db_now(plus=FAR_RING_SECONDS)).values(notified_at=None))
        waits = update(Job).execution_options(synchronize_session=False).where(Job.state == "queued")
        session.execute(waits.where(Job.not_before > db_now(plus=FAR_SECONDS)).values(not_before=None))


def reap(sessions: sessionmaker[Session], max_interruptions: int) -> int:
    """Jobs whose lease has expired go back to the queue, or fail after too many lost workers."""
    with sessions() as session:
        expired = select(Job.id).where(Job.state.in_(WITH_WORKER), Job.lease_expires_at < db_now())
        lost = session.scalars(expired.limit(100)).all()
    for job_id in lost:
        with sessions.begin() as session:
            still = select(Job).where(Job.id == job_id, Job.state.in_(WITH_WORKER), Job.lease_expires_at < db_now())
            job = session.scalars(still.with_for_update()).one_or_none()
            if job is None:
                continue
            state = attempts.interrupted(session, job, "the worker was lost (its lease expired)", max_interruptions)
            log.warning("job %s lost its worker; it is %s", job_id, state)
    return len(lost)


def admit(sessions: sessionmaker[Session]) -> None:
    """Jobs that waited for a dataset whose check has ended."""
    with sessions() as session:
        waiting = (
            select(Job.dataset_id)
            .join(Dataset, Dataset.id == Job.dataset_id)
            .where(Job.state == "validating", Dataset.state.in_(("ready", "invalid")))
            .distinct()
        )
        datasets = session.scalars(waiting).all()
    for dataset_id in datasets:
        with sessions.begin() as session:
            admit_waiting(session, dataset_id)


def ring_for_unheard(sessions: sessionmaker[Session], ring: Callable[[str], object]) -> None:
    """Ring again for work that has waited without anyone coming."""
    unheard = or_(Job.notified_at.is_(None), Job.notified_at < db_now(plus=-RING_AGAIN_SECONDS))
    due = or_(Job.not_before.is_(None), Job.not_before <= db_now())
    queues: set[str] = set()
    with sessions.begin() as session:
        rung = (
            update(Job)
            .where(Job.state == "queued", due, unheard)
            .values(notified_at=db_now())
            .returning(Job.queue)
            .execution_options(synchronize_session=False)
        )
        queues.update(session.scalars(rung))
        for table, state, queue in (
            (Dataset, "uploading", "data"),
            (Dataset, "validating", "data"),
            (InferenceRequest, "queued", "predict"),
        ):
            free = or_(table.lease_expires_at.is_(None), table.lease_expires_at < db_now())
            silent = or_(table.notified_at.is_(None), table.notified_at < db_now(plus=-RING_AGAIN_SECONDS))
            again = (
                update(table)
                .where(table.state == state, free, silent)
                .values(notified_at=db_now())
                .returning(table.id)
                .execution_options(synchronize_session=False)
            )
            if session.scalars(again).first() is not None:
                queues.add(queue)
    for queue in sorted(queues):
        ring(queue)
