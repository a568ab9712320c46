"""Jobs of lost workers are queued again, and times that only a changed clock can have set are repaired."""

from __future__ import annotations

import logging

from sqlalchemy.orm import Session, sessionmaker

from service.background import repository
from service.jobs import attempts

log = logging.getLogger(__name__)
BATCH = 100
MAX_LEASES, MAX_SECONDS, MAX_NOTIFICATION_SECONDS = 10, 900.0, 60.0
"""No lease, pause or notification is ever set further ahead. Workers' clocks do not matter: the database's counts."""


def expire_leases(sessions: sessionmaker[Session], max_interruptions: int) -> int:
    """Queue jobs whose lease has expired again, or fail them after too many lost workers; returns how many were found."""
    with sessions() as session:
        expired = repository.expired_leases(session, BATCH)
    for job_id in expired:
        with sessions.begin() as session:
            job = repository.lock_expired(session, job_id)
            if job is None:
                continue
            state = attempts.interrupted(session, job, "the worker was lost (its lease expired)", max_interruptions)
            log.warning("job=%s lost its worker: the lease expired; the job is %s now", job_id, state)
    return len(expired)


def repair_clock_skew(sessions: sessionmaker[Session], lease_seconds: float) -> None:
    """Pull in times that lie so far ahead that the database's clock must have been set back since they were written.

    A worker that is alive renews its lease long before the new end.
    """
    with sessions.begin() as session:
        repository.shorten_leases(session, max(MAX_LEASES * lease_seconds, MAX_SECONDS), lease_seconds)
        repository.clear_future_notifications(session, MAX_NOTIFICATION_SECONDS)
        repository.end_long_pauses(session, MAX_SECONDS)
