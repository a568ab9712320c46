"""Ending jobs that lose what they need."""

from __future__ import annotations

from sqlalchemy import update
from sqlalchemy.orm import Session

from service.database import db_now
from service.jobs.states import ENDED, WITH_WORKER, transition
from service.jobs.tables import Job


def withdraw(session: Session, job: Job, *, actor: str, reason: str) -> None:
    """Cancel a job that waits; tell the worker of one that runs to. An ended job stays as it ended."""
    if job.state in WITH_WORKER:
        wish = {"action": "cancel", "reason": reason}
        session.execute(
            update(Job)
            .where(Job.id == job.id)
            .values(requested_action=wish, updated_at=db_now())
            .execution_options(synchronize_session=False)
        )
    elif job.state not in ENDED:
        transition(session, job, "cancelled", actor=actor, reason=reason, requested_action=None)
