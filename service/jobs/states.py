"""The state machine of a job: one table, one door."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from service.database import after_commit, db_now
from service.instrumentation import JOBS_ENDED, error_labels
from service.jobs.tables import Job, JobEvent
from service.webhooks import outbox

State = Literal[
    "validating",
    "queued",
    "starting",
    "running",
    "pausing",
    "paused",
    "stopping",
    "succeeded",
    "stopped",
    "cancelled",
    "failed",
]
ENDED: frozenset[str] = frozenset({"succeeded", "stopped", "cancelled", "failed"})
WITH_WORKER: frozenset[str] = frozenset({"starting", "running", "pausing", "stopping"})
"""States in which a worker holds the lease, and its writes are accepted."""

ALLOWED: dict[str, frozenset[str]] = {
    "validating": frozenset({"queued", "cancelled", "failed"}),
    "queued": frozenset({"starting", "paused", "cancelled", "failed"}),
    "starting": frozenset({"running", "queued", "pausing", "stopping", "cancelled", "failed"}),
    "running": frozenset({"stopping", "pausing", "succeeded", "stopped", "queued", "cancelled", "failed"}),
    "pausing": frozenset({"paused", "stopping", "succeeded", "stopped", "queued", "cancelled", "failed"}),
    "paused": frozenset({"queued", "cancelled"}),
    # a stop that meets a death goes on as a stop: the next attempt evaluates and keeps the best weights
    "stopping": frozenset({"stopped", "succeeded", "queued", "cancelled", "failed"}),
    "succeeded": frozenset(),
    "stopped": frozenset(),
    "cancelled": frozenset(),
    "failed": frozenset(),
}


class Conflict(Exception):  # noqa: N818 - an answer, not a failure
    """The job is not in a state from which this change is allowed."""

    def __init__(self, job_id: str, state: str, wanted: str) -> None:
        self.job_id, self.state, self.wanted = job_id, state, wanted
        super().__init__(f"{job_id} is {state}, which cannot become {wanted}")


def transition(session: Session, job: Job, to: State, *, actor: str, reason: str | None = None, **changes: Any) -> bool:
    """Compare-and-swap `job.state` to `to` with an event; False when someone else changed it first.

    Raises Conflict when the table does not allow the change. `changes` are further columns, written with it.
    """
    if to not in ALLOWED[job.state]:
        raise Conflict(job.id, job.state, to)
    if to in ENDED:
        changes.setdefault("finished_at", db_now())
    if to not in WITH_WORKER:
        changes.update(lease_owner=None, lease_expires_at=None)
    swapped = session.execute(
        update(Job)
        .where(Job.id == job.id, Job.state == job.state, Job.fence == job.fence)
        .values(state=to, next_event_seq=Job.next_event_seq + 1, updated_at=db_now(), **changes)
        .returning(Job.next_event_seq)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()
    if swapped is None:
        return False
    if to in ENDED:
        ended = JOBS_ENDED.labels(to, changes.get("stop_reason") or "", *error_labels(changes.get("error")))
        after_commit(session, ended.inc)
    job_id, project_id, from_state = job.id, job.project_id, job.state
    session.expire(job)
    _leave_event(session, project_id, job_id, swapped - 1, from_state, to, reason, actor)
    return True


def first_event(session: Session, job: Job, *, actor: str, reason: str | None = None) -> None:
    """The event of a job's creation: from nothing to its first state."""
    _leave_event(session, job.project_id, job.id, job.next_event_seq, None, job.state, reason, actor)
    job.next_event_seq += 1


def _leave_event(
    session: Session,
    project_id: str,
    job_id: str,
    seq: int,
    from_state: str | None,
    to: str,
    reason: str | None,
    actor: str,
) -> None:
    """The one place where events of kind `state` are made, and with them what webhooks are told of it."""
    at = session.execute(
        insert(JobEvent)
        .values(job_id=job_id, seq=seq, at=db_now(), from_state=from_state, to_state=to, reason=reason, actor=actor)
        .returning(JobEvent.at)
    ).scalar_one()
    event = {"seq": seq, "at": at, "from": from_state, "to": to, "reason": reason}
    outbox.publish(session, project_id, job_id, event)
