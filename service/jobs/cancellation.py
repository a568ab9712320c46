"""Cancel jobs that lose what they need."""

from __future__ import annotations

from sqlalchemy.orm import Session

from service.jobs import repository
from service.jobs.states import ENDED, WITH_WORKER
from service.jobs.tables import Job
from service.jobs.transitions import transition


def cancel_job(session: Session, job: Job, *, actor: str, reason: str) -> None:
    """Cancel a waiting job, or request it of the worker of a running one. An ended job stays as it is."""
    if job.state in WITH_WORKER:
        repository.update_job(session, job.id, requested_action={"action": "cancel", "reason": reason})
    elif job.state not in ENDED:
        transition(session, job, "cancelled", actor=actor, reason=reason, requested_action=None)
