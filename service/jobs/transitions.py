"""Changes of a job's state. Every change writes an event and is published to webhooks, in one transaction."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from service.audit.changes import record
from service.database import after_commit, db_now
from service.instrumentation import JOBS_ENDED, error_labels
from service.jobs import repository
from service.jobs.states import ALLOWED, ENDED, WITH_WORKER, Conflict, State
from service.jobs.tables import Job
from service.keys import budget
from service.outbox import service as outbox

SHOWN = ("stop_reason", "requested_action")
"""Columns that the audit log shows beside the state."""


def transition(session: Session, job: Job, to: State, *, actor: str, reason: str | None = None, **changes: Any) -> bool:
    """Compare-and-swap `job.state` to `to` with an event; False when someone else changed it first.

    Raises Conflict when the table does not allow the change. `changes` are further columns, written with it.
    """
    if to not in ALLOWED[job.state]:
        raise Conflict(job.id, job.state, to)
    if to in ENDED:
        changes.setdefault("finished_at", db_now())
        changes["reserved_seconds"] = None
    if to not in WITH_WORKER:
        changes.update(lease_owner=None, lease_process=None, lease_expires_at=None)
    reserved, key_id = job.reserved_seconds, job.budget_key_id
    seq = repository.swap_state(session, job, to, changes)
    if seq is None:
        return False
    if to in ENDED and reserved is not None and key_id is not None:
        budget.spend(session, key_id, 0.0, reserved)
    if to in ENDED:
        ended = JOBS_ENDED.labels(to, changes.get("stop_reason") or "", *error_labels(changes.get("error")))
        after_commit(session, ended.inc)
    job_id, project_id, from_state = job.id, job.project_id, job.state
    after = {"state": to, **{name: changes[name] for name in SHOWN if name in changes}}
    record(session, "job", job_id, project_id, {"state": from_state}, after)
    session.expire(job)
    _leave_event(session, project_id, job_id, seq, from_state, to, reason, actor)
    return True


def request_action(session: Session, job: Job, action: dict[str, Any], **changes: Any) -> None:
    """Ask whoever has the job, now or next, to stop or cancel it; its state stays. `changes` are further columns."""
    before, after = {"requested_action": job.requested_action}, {"requested_action": action}
    record(session, "job", job.id, job.project_id, before, after)
    repository.update_job(session, job.id, requested_action=action, **changes)


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
    """The one place where events of kind `state` are made, with what webhooks are told of it and what mirrors copy."""
    at = repository.add_event(
        session, job_id=job_id, seq=seq, from_state=from_state, to_state=to, reason=reason, actor=actor
    )
    if to == "starting":
        outbox.begin_copies(session, project_id, job_id)
    event = {"seq": seq, "at": at, "from": from_state, "to": to, "reason": reason}
    outbox.publish(session, project_id, event, partial(repository.summary, session, job_id))
