"""What a worker may say of the job it holds. Each function is one short transaction's work, under the fence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from service.database import after_commit, db_now, db_time, json_bytes, new_id
from service.instrumentation import ATTEMPTS_ENDED, error_labels
from service.jobs import compute_usage, repository
from service.jobs.leases import lock_claimed
from service.jobs.model_registration import register
from service.jobs.states import State
from service.jobs.tables import Artifact, Attempt, Job
from service.jobs.transitions import transition
from service.keys import budget
from service.leases import Claim
from service.models.tables import Model
from service.workers.names import worker_alias
from trainkit.spec.failures import failure

RETRY_SECONDS = 5.0
"""Pause before a failed attempt is tried again, doubled for each further one."""
LONGEST_PAUSE = 60.0
STOPPED = frozenset({"client_stop", "time_limit", "diverged"})
"""Reasons with which a run ends `stopped` and not `succeeded`."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that already lies in storage."""

    name: str
    storage_key: str
    media_type: str
    bytes: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """A job's good end: the model, where it has one, is in storage, and the numbers are known."""

    stop_reason: str
    result: dict[str, Any]
    evaluation: dict[str, Any] | None
    model_kind: str
    model_key: str | None
    """None of what scikit-learn has fitted: it leaves no model."""
    model_manifest: dict[str, Any]
    model_bytes: int
    model_digests: dict[str, Any] | None = None
    files: list[StoredFile] = field(default_factory=list)


def start(session: Session, claim: Claim, *, resumed_from_step: int | None = None) -> None:
    """starting -> running."""
    job = lock_claimed(session, claim)
    if resumed_from_step is not None:
        attempt = _attempt(session, claim)
        attempt.resumed_from_step = resumed_from_step
        session.flush()
    if job.state != "starting":
        return
    changes: dict[str, Any] = {} if job.started_at is not None else {"started_at": db_now()}
    reason = f"resumed from step {resumed_from_step}" if resumed_from_step is not None else None
    transition(session, job, "running", actor=job.lease_owner or "worker", reason=reason, **changes)


def note(session: Session, claim: Claim, **changes: Any) -> None:
    """Write `phase`, `progress` or `runtime` on the job."""
    job = lock_claimed(session, claim)
    repository.update_job(session, job.id, **changes)


def note_variant(session: Session, claim: Claim, variant: Mapping[str, Any]) -> None:
    """Add an event for a variant of an investigation that has begun or ended, unless this attempt has noted it already.

    Args:
        variant: `{number, position, name, state, patch, ...}`; `position` counts the events of the attempt.
    """
    job = lock_claimed(session, claim)
    data = {"attempt": claim.fence, **variant}
    last = repository.last_event(session, job.id, "variant")
    known = (last.data or {}) if last is not None else {}
    if known.get("attempt") == claim.fence and known["position"] >= variant["position"]:
        return  # a commit whose answer was lost has happened
    reason = f"{variant['name']}: {variant['state']}"
    repository.add_job_event(session, job, kind="variant", reason=reason, actor=job.lease_owner or "worker", data=data)


def resumed(session: Session, claim: Claim, exact: bool, reason: str | None) -> None:
    """The training process has loaded its checkpoint, and says whether that makes a difference to the last bit."""
    lock_claimed(session, claim)
    _attempt(session, claim).resume = {"exact": exact, "reason": reason}
    session.flush()


def stop_by_rule(session: Session, job: Job, reason: str) -> None:
    """A rule across jobs says stop: wished for as a client's stop is, and never instead of a stop or cancel before it."""
    if (job.requested_action or {}).get("action") in ("cancel", "stop") or job.state == "stopping":
        return
    command = {"action": "stop", "keep": "best", "stop_reason": "early_stop", "reason": reason}
    transition(session, job, "stopping", actor="rule", reason=reason, requested_action=command)


def finish(session: Session, claim: Claim, outcome: Finish) -> str | None:
    """Model, files, result and the final state, all or nothing. Returns the model's id, None where there is none."""
    job = lock_claimed(session, claim)
    model_id = None if outcome.model_key is None else new_id("mdl")
    now = db_time(session)
    if model_id is not None:
        model = Model(
            id=model_id,
            kind=outcome.model_kind,
            storage_key=outcome.model_key,
            manifest=outcome.model_manifest,
            metrics=outcome.result.get("test") or {},
            bytes=outcome.model_bytes,
            digests=outcome.model_digests,
            created_at=now,
        )
        register(session, job, model)
    for file in outcome.files:
        repository.save_artifact(
            session,
            Artifact(
                job_id=job.id,
                name=file.name,
                storage_key=file.storage_key,
                media_type=file.media_type,
                bytes=file.bytes,
                sha256=file.sha256,
                created_at=now,
            ),
        )
    session.flush()
    to: State = "stopped" if outcome.stop_reason in STOPPED else "succeeded"
    _close_attempt(session, job, to)
    transition(
        session,
        job,
        to,
        actor=job.lease_owner or "worker",
        reason=outcome.stop_reason,
        stop_reason=outcome.stop_reason,
        result={**outcome.result, "model": model_id},
        evaluation=outcome.evaluation,
        record_bytes=Job.record_bytes + json_bytes(outcome.evaluation) - json_bytes(job.evaluation),
        phase=None,
        requested_action=None,
        error=None,
    )
    return model_id


def cancelled(session: Session, claim: Claim) -> None:
    """The training process has ended as the client wished; nothing is kept."""
    job = lock_claimed(session, claim)
    give_up(session, job, "cancelled", _wished_because(job))


def give_up(session: Session, job: Job, to: State, reason: str) -> None:
    """End the job without a model."""
    _close_attempt(session, job, to)
    transition(session, job, to, actor=job.lease_owner or "worker", reason=reason, phase=None, requested_action=None)


def hand_back(session: Session, claim: Claim, reason: str) -> None:
    """The worker is going away in good order: the job is queued again at once, and nothing is counted against it."""
    job = lock_claimed(session, claim)
    if _as_wished(session, job):
        return
    _close_attempt(session, job, "handed_back")
    transition(
        session,
        job,
        "queued",
        actor=job.lease_owner or "worker",
        reason=reason,
        phase=None,
        not_before=None,
    )


def _as_wished(session: Session, job: Job) -> State | None:
    """An attempt that ends early while a cancel or a pause is wished for ends as wished; None when neither is."""
    action = (job.requested_action or {}).get("action")
    to: State | None = "cancelled" if action == "cancel" else "paused" if job.state == "pausing" else None
    if to is not None:
        give_up(session, job, to, _wished_because(job))
    return to


def _wished_because(job: Job) -> str:
    """Who wished for the end: the client, or whatever took away what the job needs."""
    return str((job.requested_action or {}).get("reason", "client"))


def fail(session: Session, claim: Claim, error: dict[str, Any]) -> State:
    """An attempt went wrong: a retryable error is tried again while attempts are left, any other ends the job."""
    job = lock_claimed(session, claim)
    actor, attempts = job.lease_owner or "worker", job.attempts + 1
    _close_attempt(session, job, "failed", error)
    changes: dict[str, Any] = {"phase": None, "attempts": attempts}
    to: State
    if (job.requested_action or {}).get("action") == "cancel":
        to, reason = "cancelled", _wished_because(job)
        changes.update(requested_action=None)
    elif error.get("retryable") and attempts < job.max_attempts and job.reserved_seconds != 0:
        pause = min(LONGEST_PAUSE, RETRY_SECONDS * 2.0 ** (attempts - 1))
        reason = f"{error['code']}: attempt {attempts} of {job.max_attempts}, again in {pause:.0f} s"
        changes.update(error=error, not_before=db_now(plus=pause))
        to = "paused" if job.state == "pausing" else "queued"
        if to == "paused":
            changes.update(requested_action=None)
    else:
        to, reason = "failed", error.get("code", "failed")
        changes.update(error=error, requested_action=None)
    transition(session, job, to, actor=actor, reason=reason, **changes)
    return to


def interrupted(
    session: Session,
    job: Job,
    reason: str,
    limit: int,
    *,
    delay: float = 0.0,
    error: dict[str, Any] | None = None,
) -> State:
    """The platform failed the job (a lost worker, a killed process): queued again, `limit` times in a row at most.

    What comes further from one checkpoint to the next may be interrupted as often as it likes, and goes on at once. In
    vain for the second time it waits 1 s, then 2, 4 ..., but not less than `delay`. `error`: the attempt's own, if known.
    """
    if (ended := _as_wished(session, job)) is not None:
        return ended
    interruptions, in_vain = job.interruptions + 1, _in_vain(session, job)
    pause = max(delay, min(LONGEST_PAUSE, 2.0 ** (in_vain - 2))) if in_vain > 1 else 0.0
    evidence = {
        "worker": worker_alias(job.lease_owner or "worker"),
        "interruptions": interruptions,
        "without_progress": in_vain,
    }
    lost = failure("worker_lost", f"the worker was lost {in_vain} times without progress: {reason}", evidence)
    _close_attempt(session, job, "lost", error or {**lost, "message": reason})
    if in_vain > limit:
        transition(
            session,
            job,
            "failed",
            actor="housekeeping",
            reason="worker_lost",
            interruptions=interruptions,
            error=lost,
            phase=None,
        )
        return "failed"
    transition(
        session,
        job,
        "queued",
        actor="housekeeping",
        reason=reason,
        interruptions=interruptions,
        phase=None,
        not_before=db_now(plus=pause) if pause else None,
    )
    return "queued"


def _in_vain(session: Session, job: Job) -> int:
    """How many attempts in a row, this one included, were lost without a checkpoint beyond the one they began with."""
    reached = repository.last_checkpoint_step(session, job.id)
    count = 0
    for attempt in repository.attempts_newest_first(session, job):
        begun = attempt.resumed_from_step
        lost = attempt.fence == job.fence or attempt.outcome == "lost"
        if not lost or (reached is not None and reached > (begun if begun is not None else -1)):
            break
        count, reached = count + 1, begun
    return count


def save_artifact(session: Session, claim: Claim, file: StoredFile) -> None:
    """Register a file that lies in storage."""
    lock_claimed(session, claim)
    repository.save_artifact(
        session,
        Artifact(
            job_id=claim.id,
            name=file.name,
            storage_key=file.storage_key,
            media_type=file.media_type,
            bytes=file.bytes,
            sha256=file.sha256,
            created_at=db_time(session),
        ),
    )


def _attempt(session: Session, claim: Claim) -> Attempt:
    attempt = repository.attempt(session, claim.id, claim.fence)
    assert attempt is not None
    return attempt


def _close_attempt(session: Session, job: Job, outcome: str, error: dict[str, Any] | None = None) -> None:
    attempt = repository.attempt(session, job.id, job.fence)
    if attempt is not None:
        now = db_time(session)
        attempt.finished_at, attempt.outcome, attempt.error = now, outcome, error
        session.flush()
        compute_usage.record(session, job.project_id, job.runtime, attempt.started_at, now)
        _spend(session, job, (now - attempt.started_at).total_seconds())
        after_commit(session, ATTEMPTS_ENDED.labels(outcome, *error_labels(error)).inc)


def _spend(session: Session, job: Job, seconds: float) -> None:
    """Count an attempt against the budget of the key that created the job."""
    if job.budget_key_id is None:
        return
    released = min(seconds, job.reserved_seconds or 0.0)
    if job.reserved_seconds is not None:
        job.reserved_seconds = round(job.reserved_seconds - released, 6)
        session.flush()
    budget.spend(session, job.budget_key_id, seconds, released)
