"""Work that waits gets on: jobs whose dataset has been checked, and queued work that no worker has heard of."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session, sessionmaker

from service.background import repository
from service.jobs.service import admit_waiting

NOTIFY_AGAIN_SECONDS = 3.0


def admit_waiting_jobs(sessions: sessionmaker[Session]) -> None:
    """Queue the jobs that waited for a dataset whose check has ended, or fail them with the check's error."""
    with sessions() as session:
        datasets = repository.checked_datasets_with_waiting_jobs(session)
    for dataset_id in datasets:
        with sessions.begin() as session:
            admit_waiting(session, dataset_id)


def redispatch(sessions: sessionmaker[Session], ring: Callable[[str], object]) -> None:
    """Ring again for each queue with due work that no worker has taken since the last message."""
    with sessions.begin() as session:
        queues = repository.mark_unheard(session, NOTIFY_AGAIN_SECONDS)
    for queue in sorted(queues):
        ring(queue)
