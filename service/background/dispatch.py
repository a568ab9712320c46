"""Work that waits gets on: jobs whose dataset has been checked, and queued work that no worker has heard of."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session, sessionmaker

from service.background import repository
from service.database import reading
from service.jobs.limits import NO_LIMITS, limits_of
from service.jobs.service import QUEUE, admit_waiting
from service.settings import Settings


def admit_waiting_jobs(
    sessions: sessionmaker[Session],
    ring: Callable[[str], object] = lambda queue: None,
    settings: Settings | None = None,
) -> None:
    """Queue the jobs that waited for a dataset whose check has ended, or fail them with the check's error."""
    with reading(sessions) as session:
        datasets = repository.checked_datasets_with_waiting_jobs(session)
    for dataset_id in datasets:
        while True:
            with sessions.begin() as session:
                limits = limits_of(session, settings) if settings is not None else NO_LIMITS
                waiting = admit_waiting(session, dataset_id, limits)
            if not waiting:
                break
            ring(QUEUE)


def redispatch(sessions: sessionmaker[Session], ring: Callable[[str], object]) -> None:
    """Ring for each queue with due work: its message may have been lost.

    Whoever makes work due rings for it, so this may come late; it only reads, however long the queues are.
    """
    with reading(sessions) as session:
        queues = repository.queues_with_due_work(session)
    for queue in sorted(queues):
        ring(queue)
