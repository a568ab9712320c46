"""Jobs of lost workers are queued again, and times that only a changed clock can have set are repaired."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial

from sqlalchemy.orm import Session, sessionmaker

from service import process_identity
from service.background import repository
from service.database import after_commit, reading
from service.jobs import attempts
from service.leases import Claim

log = logging.getLogger(__name__)
BATCH = 100
MAX_LEASES, MAX_SECONDS = 10, 900.0
"""No lease or pause is ever set further ahead. Workers' clocks do not matter: the database's counts."""


def expire_leases(
    sessions: sessionmaker[Session], max_interruptions: int, ring: Callable[[str], object] = lambda queue: None
) -> int:
    """Queue jobs whose lease has expired again, or fail them after too many lost workers; returns how many were found."""
    with reading(sessions) as session:
        expired = repository.expired_leases(session, BATCH)
    for job_id in expired:
        with sessions.begin() as session:
            job = repository.lock_expired(session, job_id)
            if job is None:
                continue
            state = attempts.interrupted(session, job, "the worker was lost (its lease expired)", max_interruptions)
            log.warning("job=%s lost its worker: the lease expired; the job is %s now", job_id, state)
            after_commit(session, partial(ring, job.queue))
    return len(expired)


def release_ended(
    sessions: sessionmaker[Session],
    max_interruptions: int,
    ring: Callable[[str], object],
    has_ended: Callable[[str], bool] = process_identity.has_ended,
) -> int:
    """Take leases back from processes of this host that have ended, and ring; returns how many.

    Every worker's housekeeping does this for its own host, whoever's turn the rest is: only who shares the kernel and
    its namespaces can see that a process has ended. Leases of all others run until they expire. A process that was
    taken for another is harmless: its writes carry a fence that is stale then.
    """
    with reading(sessions) as session:
        held = repository.held_leases(session)
    ended = [(queue, claim) for queue, claim, process in held if has_ended(process)]
    released: Counter[str] = Counter()
    for queue, claim in ended:
        with sessions.begin() as session:
            released[queue] += _release(session, queue, claim, max_interruptions)
    for queue in +released:
        ring(queue)
    return released.total()


def _release(session: Session, queue: str, claim: Claim, max_interruptions: int) -> bool:
    if queue != "train":
        return repository.end_lease(session, queue, claim)
    job = repository.lock_held(session, claim)
    if job is None:
        return False
    state = attempts.interrupted(session, job, "the worker was lost (its process ended)", max_interruptions)
    log.warning("job=%s lost its worker: the process ended; the job is %s now", claim.id, state)
    return True


def repair_clock_skew(sessions: sessionmaker[Session], lease_seconds: float) -> None:
    """Pull in times that lie so far ahead that the database's clock must have been set back since they were written.

    A worker that is alive renews its lease long before the new end.
    """
    too_far = max(MAX_LEASES * lease_seconds, MAX_SECONDS)
    with reading(sessions) as session:
        if not repository.has_future_times(session, too_far, MAX_SECONDS):
            return  # every second but those of a changed clock: no writer waits for it
    with sessions.begin() as session:
        repository.shorten_leases(session, too_far, lease_seconds)
        repository.end_long_pauses(session, MAX_SECONDS)
