"""Rules of jobs: admission, and what clients may ask of a job. Every change goes through states.transition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from service import quota
from service.context import Context
from service.database import after_commit, db_time, json_bytes, new_id
from service.datasets import repository as datasets_repository
from service.datasets.tables import DatasetVersion
from service.errors import HttpProblem, Quota, not_found
from service.jobs import compute_usage, lineage, references, repository
from service.jobs.idempotency import idempotent, implied
from service.jobs.limits import (
    NO_LIMITS,
    JobLimits,
    limits_of,
    problems_of_estimate,
    problems_of_spec,
    too_many_epochs,
)
from service.jobs.lineage import Branch, Relation
from service.jobs.spec_references import resolve_spec
from service.jobs.states import ENDED
from service.jobs.tables import Job
from service.jobs.transitions import first_event, request_action, transition
from service.keys import budget
from service.principal import SERVICE_ACTOR, Principal
from service.projects import repository as projects
from service.projects.service import rules
from service.registry.names import ID
from trainkit.spec import DatasetFacts, JobSpec, ResolvedSpec, SpecError, further_problems, parse_spec, resolve
from trainkit.spec.failures import SPEC_CODES, code_of_problems, failure
from trainkit.spec.patch import full_form, merge_patch
from trainkit.spec.problems import Problem as SpecProblem

QUEUE = "train"
INVESTIGATING: frozenset[Relation] = frozenset({"investigation", "retry", "resume"})
"""Relations whose new job may be an investigation."""
ADMITTED_AT_ONCE = 8
"""Jobs admitted in one transaction: on SQLite all other writers wait for it."""


@dataclass(frozen=True, slots=True)
class CheckedSpec:
    """A spec without a mistake."""

    document: Any
    """As submitted, with an id in place of each reference by name."""
    reference_names: Mapping[str, str]
    """JSON pointer -> the reference by name that the client wrote there."""
    spec: JobSpec
    dataset: DatasetVersion
    resolved: ResolvedSpec | None
    """Resolved by the dataset's facts, once these are known."""


def check(
    session: Session, who: Principal, document: Any, limits: JobLimits = NO_LIMITS, *, investigates: bool = False
) -> CheckedSpec:
    """Parse and resolve a document. Raises SpecError with everything wrong; None resolved while the data is checked.

    References by name are resolved here, once. `limits`: what the operator allows any job. `investigates`: the document
    is that of an investigation, which the service writes.
    """
    named = resolve_spec(session, who.project_id, document)
    document = named.document
    try:
        spec = parse_spec(document)
    except SpecError as error:
        beside = _seen_beside(session, who, document, error.problems)
        raise SpecError([*error.problems, *beside, *named.problems]) from None
    dataset = datasets_repository.get(session, who.project_id, spec.dataset.id)
    place = _dataset_pointer(document)
    if dataset is None:
        hint = "GET /v1/datasets lists the datasets of this project."
        message = f"there is no dataset {spec.dataset.id!r}"
        missing = [SpecProblem(place, "unknown_dataset", message, hint)]
        raise SpecError([*(missing if all(one.pointer != place for one in named.problems) else ()), *named.problems])
    if dataset.state == "invalid":
        reason = (dataset.error or {}).get("message", "")
        hint = f"GET /v1/datasets/{dataset.id}/report says why; upload it again."
        raise SpecError([SpecProblem(place, "invalid_dataset", f"the dataset is not usable: {reason}", hint)])
    unknown = {one.pointer: one for one in named.problems}  # these know what comes near
    absent = [unknown.get(one.pointer, one) for one in references.problems(session, who, spec)]
    absent += problems_of_spec(spec, limits)
    if spec.investigation is not None and not investigates:
        hint = f"Remove it, and send POST /v1/jobs/{spec.investigation.job}/diagnosis:investigate."
        absent.append(SpecProblem("/investigation", "not_for_clients", "the service writes this section itself", hint))
    resolved = None
    if dataset.state == "ready":
        try:
            resolved = resolve(spec, DatasetFacts.model_validate(dataset.facts))
        except SpecError as error:
            raise SpecError([*error.problems, *absent]) from None
    if resolved is not None and not absent:
        facts = DatasetFacts.model_validate(dataset.facts)
        absent = list(problems_of_estimate(resolved, facts, limits))
        absent += references.head_problems(session, resolved.spec, facts)
    if absent:
        raise SpecError(absent)
    return CheckedSpec(document, named.names, spec, dataset, resolved)


def _still_holds(session: Session, who: Principal, checked: CheckedSpec) -> bool:
    """Whether what the spec names is still as it was when the spec was checked."""
    dataset = datasets_repository.get(session, who.project_id, checked.dataset.id)
    if dataset is None or dataset.state != checked.dataset.state:
        return False
    return not any(references.problems(session, who, checked.spec))


def _seen_beside(session: Session, who: Principal, document: Any, known: Sequence[SpecProblem]) -> list[SpecProblem]:
    """What the dataset forbids in those parts of a faulty document that can be read: all mistakes are told at once."""
    named = document.get("dataset") if isinstance(document, Mapping) else None
    identifier = named.get("id") if isinstance(named, Mapping) else named
    if not isinstance(identifier, str) or not ID.fullmatch(identifier):
        return []
    dataset = datasets_repository.get(session, who.project_id, identifier)
    if dataset is None or dataset.state != "ready":
        return []
    return further_problems(document, known, DatasetFacts.model_validate(dataset.facts))


def _dataset_pointer(document: Any) -> str:
    return (
        "/dataset/id" if isinstance(document, Mapping) and isinstance(document.get("dataset"), Mapping) else "/dataset"
    )


def create(
    session: Session,
    context: Context,
    who: Principal,
    document: Any,
    idempotency_key: str | None,
    branch: Callable[[Session], tuple[Any, Branch]] | None = None,
    checked: CheckedSpec | None = None,
) -> tuple[Job, bool]:
    """Submit a job: row and event in the session's transaction, the bell after it. Returns (job, whether it is new).

    With `branch` the job's document and where it comes from are made by it; `document` is what was asked. `checked`:
    see `admit`.
    """

    def make(session: Session) -> Job:
        described, origin = (document, None) if branch is None else branch(session)
        return admit(session, context, who, described, origin, checked)

    def find(session: Session, job_id: str) -> Job | None:
        return repository.get(session, who.project_id, job_id)

    job, new = idempotent(session, who.project_id, idempotency_key, document, make, find)
    if new and job.state == "queued":
        after_commit(session, partial(context.doorbell.ring, QUEUE))
    return job, new


def admit(
    session: Session,
    context: Context,
    who: Principal,
    document: Any,
    branch: Branch | None = None,
    checked: CheckedSpec | None = None,
) -> Job:
    """Make a job, in the caller's transaction; the caller rings. Raises before anything is written: SpecError, or a 413,
    429, 409 or 403 problem where the project or the key has used up a limit.

    `checked`: what `check` found of the same document before the transaction, so that nobody waits while it is read.
    """
    if checked is None or not _still_holds(session, who, checked):
        investigates = branch is not None and branch.relation in INVESTIGATING
        checked = check(session, who, document, limits_of(session, context.settings), investigates=investigates)
    spec, dataset, resolved = checked.spec, checked.dataset, checked.resolved
    if branch is not None and branch.checkpoint is not None and resolved is not None:
        lineage.check_same_run(branch.parent, resolved.spec)
    kept = rules(session, context.settings, who.project_id)
    quota.check_before_job(session, kept.max_storage_bytes, who.project_id)
    if spec.resources.device != "cpu":
        compute_usage.check_gpu_hours(session, who.project_id, kept.max_gpu_hours)
    if kept.max_queued_jobs:
        _check_queue(session, who.project_id, kept.max_queued_jobs)
    paid = budget.reserve(session, _payer(who, branch), spec.resources.max_seconds)
    document, runnable = full_form(checked.document), resolved.spec.model_dump(mode="json") if resolved else None
    if paid is not None and paid.seconds is not None:
        for one in (document, runnable):
            if one is not None:
                one["resources"] = {**(one.get("resources") or {}), "max_seconds": paid.seconds}
    now = db_time(session)
    job = Job(
        id=new_id("job"),
        project_id=who.project_id,
        name=spec.name,
        labels=dict(spec.labels),
        group_name=spec.group,
        spec=document,
        reference_names=dict(checked.reference_names) or None,
        resolved=runnable,
        record_bytes=json_bytes(document, runnable),
        dataset_id=dataset.id,
        queue=QUEUE,
        priority=spec.resources.priority,
        parent=branch.as_json() if branch else None,
        retry_of=branch.parent.id if branch and branch.relation == "retry" else None,
        investigation_of=spec.investigation.job if spec.investigation else None,
        budget_key_id=paid.key_id if paid else None,
        reserved_seconds=paid.seconds if paid else None,
        state="queued" if resolved else "validating",
        metrics_last={},
        metrics_best={},
        attempts=0,
        interruptions=0,
        max_attempts=spec.resources.max_attempts,
        next_seq=1,
        next_event_seq=1,
        next_decision_seq=1,
        fence=0,
        created_at=now,
        updated_at=now,
    )
    repository.add_job(session, job)
    if branch is not None and branch.checkpoint is not None:
        lineage.begin_at(session, context, job, branch.checkpoint)
    if branch is not None and branch.remember is not None:
        branch.remember(session, job)
    reason = None if branch is None else f"{branch.relation} of {branch.parent.id}"
    first_event(session, job, actor=who.actor, reason=reason if resolved else "the dataset is still being checked")
    session.flush()
    return job


def _payer(who: Principal, branch: Branch | None) -> str | None:
    """Return the key whose budget a new job is taken from: what the service begins by itself is on the job before it."""
    if who.actor == SERVICE_ACTOR and branch is not None:
        return branch.parent.budget_key_id
    return budget.key_of(who.actor)


def _check_queue(session: Session, project_id: str, most: int) -> None:
    """Raise a 429 problem when the project has too many jobs waiting.

    The project's row is locked until the transaction ends: two that fit one by one must not both pass.
    """
    projects.locked(session, project_id)
    waiting = repository.waiting(session, project_id)
    if waiting >= most:
        detail = (
            f"{waiting} jobs of this project are waiting already, and {most} may. Wait until some have begun, or cancel "
            "some."
        )
        waited = Quota("queued_jobs", limit=most, used=waiting)
        raise HttpProblem(429, "too_many_queued", detail, headers={"Retry-After": "30"}, quota=waited)


def admit_waiting(session: Session, dataset_id: str, limits: JobLimits = NO_LIMITS) -> int:
    """Queue some of the jobs that waited for the dataset's check, or fail them with what it found.

    Returns how many; 0 when none waits, or the check has not ended. Call it, a transaction each time, until then.
    """
    dataset = repository.dataset(session, dataset_id)
    if dataset is None or dataset.state not in ("ready", "invalid"):
        return 0
    waiting = repository.waiting_for(session, dataset, ADMITTED_AT_ONCE)
    for job in waiting:
        if dataset.state == "ready":
            try:
                facts = DatasetFacts.model_validate(dataset.facts)
                resolved = resolve(job.spec, facts)
                found = list(problems_of_estimate(resolved, facts, limits))
                if found := [*found, *references.head_problems(session, resolved.spec, facts)]:
                    raise SpecError(found)
            except SpecError as error:
                problems = [p.as_dict() for p in error.problems]
                code = code_of_problems(problems, SPEC_CODES, "invalid_spec")
                _fail_waiting(session, job, code, str(error), {"errors": problems}, problems[0]["hint"] or None)
                continue
            document = resolved.spec.model_dump(mode="json")
            kept = {"resolved": document, "record_bytes": Job.record_bytes + json_bytes(document)}
            transition(session, job, "queued", actor="service", reason="the dataset is ready", **kept)
        else:
            reason = (dataset.error or {}).get("message", "")
            evidence = {"dataset": dataset_id, "error": dataset.error}
            _fail_waiting(session, job, "invalid_dataset", f"dataset {dataset_id} is not usable: {reason}", evidence)
    return len(waiting)


def _fail_waiting(
    session: Session, job: Job, code: str, message: str, evidence: dict[str, Any], hint: str | None = None
) -> None:
    error = failure(code, message, evidence, hint=hint)
    transition(session, job, "failed", actor="service", reason=code, error=error)


def find(session: Session, who: Principal, job_id: str) -> Job:
    """The project's job. Raises a 404 problem."""
    job = repository.get(session, who.project_id, job_id)
    if job is None:
        raise not_found("job", job_id)
    return job


def find_locked(session: Session, who: Principal, job_id: str) -> Job:
    """The same, locked until the transaction ends."""
    job = repository.locked(session, who.project_id, job_id)
    if job is None:
        raise not_found("job", job_id)
    return job


def stop(session: Session, who: Principal, job_id: str, keep: str, if_seq: int | None) -> Job:
    """Ask for a graceful end that keeps a usable model. Idempotent; a job that never ran is cancelled instead.

    With `if_seq`, raises a 409 problem when rows beyond it have come: the decision was made on an old picture.
    """
    job = find_locked(session, who, job_id)
    if (
        job.state in ENDED
        or job.state == "stopping"
        or (job.requested_action or {}).get("action") in ("cancel", "stop")
    ):
        return job  # asked before, or beyond asking
    if if_seq is not None and job.next_seq - 1 > if_seq:
        detail = f"Rows up to seq {job.next_seq - 1} have come since {if_seq}; look again before stopping."
        raise HttpProblem(409, "newer_metrics", detail)
    if job.state in ("validating", "queued") and job.started_at is None:
        transition(
            session, job, "cancelled", actor=who.actor, reason="stopped before it ran", stop_reason="client_stop"
        )
    elif job.state == "paused":
        transition(
            session,
            job,
            "queued",
            actor=who.actor,
            reason="stop",
            requested_action={"action": "stop", "keep": keep},
        )
    elif job.state == "queued":
        # it ran before: the next attempt restores its checkpoint, evaluates and keeps the model
        request_action(session, job, {"action": "stop", "keep": keep}, not_before=None)
    elif job.state in ("starting", "running", "pausing"):
        command = {"action": "stop", "keep": keep}
        transition(session, job, "stopping", actor=who.actor, reason="client_stop", requested_action=command)
    session.refresh(job)
    return job


def cancel(session: Session, who: Principal, job_id: str) -> Job:
    """End the job now and keep nothing. Idempotent; an ended job stays as it ended."""
    job = find_locked(session, who, job_id)
    if job.state in ("validating", "queued", "paused"):
        transition(session, job, "cancelled", actor=who.actor, reason="client")
    elif job.state not in ENDED and (job.requested_action or {}).get("action") != "cancel":
        request_action(session, job, {"action": "cancel"})
    session.refresh(job)
    return job


def pause(session: Session, who: Principal, job_id: str) -> Job:
    """Ask for a checkpoint and let the worker go; `resume` goes on from there. Idempotent."""
    job = find_locked(session, who, job_id)
    if job.state == "queued" and job.requested_action is None:
        transition(session, job, "paused", actor=who.actor, reason="client")
    elif job.state in ("starting", "running") and (job.requested_action or {}).get("action") not in (
        "cancel",
        "stop",
    ):
        transition(session, job, "pausing", actor=who.actor, reason="client", requested_action={"action": "pause"})
    elif job.state not in ("pausing", "paused"):
        raise HttpProblem(409, "wrong_state", f"The job is {job.state}: only queued and running jobs can be paused.")
    session.refresh(job)
    return job


def resume(
    session: Session,
    context: Context,
    who: Principal,
    job_id: str,
    extra_epochs: int = 0,
    idempotency_key: str | None = None,
) -> tuple[Job, bool]:
    """Go on: a paused job is queued again; of one that has ended a new job goes on, for no end is ever taken back.

    Returns (job, whether it is a new one). Raises a 409 problem when there is nothing to go on with.
    """
    job = find_locked(session, who, job_id)
    ended = job.state in ENDED
    if extra_epochs and job.investigation_of is not None:
        hint = "Leave it out, or investigate the job again with a larger budget."
        raise SpecError([SpecProblem("/extra_epochs", "no_epochs", "an investigation has no epochs of its own", hint)])
    if not ended:
        budget.check_payer(session, budget.key_of(who.actor), job.budget_key_id)
    if job.state == "paused":
        changes = {"resolved": lineage.with_epochs(job, extra_epochs)} if extra_epochs else {}
        most = context.settings.max_job_epochs
        if extra_epochs and most and (epochs := changes["resolved"]["train"]["epochs"]) > most:
            raise SpecError([too_many_epochs("/extra_epochs", epochs, most)])
        transition(session, job, "queued", actor=who.actor, reason="resume", not_before=None, **changes)
    elif not ended and (job.state == "pausing" or extra_epochs):
        hint = "Pause it first." if extra_epochs else "Wait until it is paused."
        raise HttpProblem(409, "wrong_state", f"The job is {job.state}: only paused and ended jobs can go on. {hint}")
    elif ended and job.stop_reason == "completed" and not extra_epochs:
        raise HttpProblem(409, "nothing_left", "The job has trained all its epochs; say how many more: extra_epochs.")
    if not ended:
        after_commit(session, partial(context.doorbell.ring, QUEUE))
        session.refresh(job)
        return job, False

    def longer(session: Session) -> tuple[Any, Branch]:
        parent = find(session, who, job_id)
        branch = Branch(parent, "resume", lineage.to_go_on_from(session, context, parent))
        return lineage.longer(parent, extra_epochs), branch

    request = {"resume": job_id, "extra_epochs": extra_epochs}
    return create(session, context, who, request, idempotency_key or implied(request), longer)


def fork(
    session: Session, context: Context, who: Principal, job_id: str, patch: dict[str, Any], idempotency_key: str | None
) -> tuple[Job, bool]:
    """A new job from this one's newest checkpoint, with its spec changed by a merge patch.

    Raises a 409 problem without a checkpoint, SpecError for changes that it cannot go on with.
    """

    def changed(session: Session) -> tuple[Any, Branch]:
        parent = find(session, who, job_id)
        return merge_patch(lineage.spec_of(parent), patch), lineage.fork_of(session, context, parent)

    request = {"fork": job_id, "patch": patch}
    return create(session, context, who, request, idempotency_key or implied(request), changed)


def retry(
    session: Session, context: Context, who: Principal, job_id: str, idempotency_key: str | None
) -> tuple[Job, bool]:
    """A new job with the same spec, from the beginning. Raises a 409 problem while this one has not ended."""

    def same(session: Session) -> tuple[Any, Branch]:
        parent = find(session, who, job_id)
        if parent.state not in ENDED:
            raise HttpProblem(
                409, "wrong_state", f"The job is {parent.state}; only one that has ended can be tried again."
            )
        return lineage.spec_of(parent), Branch(parent, "retry", None)

    request = {"retry": job_id, "again": repository.ended_retries(session, job_id)}
    return create(session, context, who, request, idempotency_key or implied(request), same)
