"""Rules of investigations: jobs that settle what is wrong with a run that has ended, by short runs with one change each.

An investigation is an ordinary job whose document is the run's, with a section `investigation`. It is claimed, stopped,
paused, resumed and charged as every job; what it finds is its row's `evaluation`, `{"findings": ...}`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from service.context import Context
from service.database import after_commit, db_time, reading, savepoint
from service.diagnosis.service import record_of
from service.errors import HttpProblem
from service.jobs import lineage, repository
from service.jobs import service as jobs
from service.jobs.idempotency import implied, is_known
from service.jobs.limits import JobLimits, limits_of
from service.jobs.lineage import Branch
from service.jobs.retention_status import check_not_purged
from service.jobs.service import CheckedSpec
from service.jobs.states import ACTIVE, ENDED
from service.jobs.tables import Job
from service.principal import Principal, service_principal
from trainkit.diagnose.diagnosis import diagnose
from trainkit.spec import JobSpec, SpecError
from trainkit.spec import Problem as SpecProblem
from trainkit.spec.checks.investigation import why_not_investigable
from trainkit.spec.investigation import default_seconds

log = logging.getLogger(__name__)
TRAINED = "loss_not_finite"
"""Code of the only error of a failed job that its training caused."""
ACTOR = "service"


def submit(
    context: Context, who: Principal, job_id: str, seconds: float | None, runs: int | None, idempotency_key: str | None
) -> tuple[Job, bool]:
    """Submit an investigation of a job that has ended. Returns (job, whether it is new).

    Without a key, a request that is sent again while the investigation lasts makes nothing new. Neither `seconds` nor
    `runs`: the default budget. Raises a 404 problem, 409 while the job has not ended and for one that cannot be
    investigated, 410 when its metrics are gone, SpecError for a budget beyond the operator's limit.
    """

    def read(session: Session) -> tuple[dict[str, Any], CheckedSpec]:
        source = jobs.find(session, who, job_id)
        check_investigable(source)
        limits = limits_of(session, context.settings)
        _check_budget(seconds, limits)
        document = document_of(source, seconds, runs)
        return document, jobs.check(session, who, document, limits, investigates=True)

    request: dict[str, Any] = {"investigate": job_id, "seconds": seconds, "jobs": runs}
    with reading(context.sessions) as session:
        jobs.find(session, who, job_id)
        if idempotency_key is None:
            ended = repository.count_investigations(session, who.project_id, job_id, ENDED)
            idempotency_key = implied({**request, "again": ended})
        found = None if is_known(session, who.project_id, idempotency_key) else read(session)

    def branch(session: Session) -> tuple[Any, Branch]:
        source = jobs.find(session, who, job_id)
        document, _ = found or read(session)
        return document, Branch(source, "investigation", None)

    checked = None if found is None else found[1]
    with context.sessions.begin() as session:
        return jobs.create(session, context, who, request, idempotency_key, branch, checked=checked)


def check_investigable(source: Job) -> None:
    """Raise a problem that says why the job cannot be investigated, and what can be done instead."""
    if source.investigation_of is not None:
        hint = f"POST /v1/jobs/{source.investigation_of}/diagnosis:investigate investigates that job again."
        detail = f"The job is itself an investigation, of {source.investigation_of}. {hint}"
        raise HttpProblem(409, "not_investigable", detail)
    if source.state not in ENDED:
        detail = f"The job is {source.state}: an investigation begins with what a run came to. Wait, or stop it."
        raise HttpProblem(409, "wrong_state", detail)
    check_not_purged(source, "metrics")
    if source.resolved is None or source.started_at is None:
        detail = f"The job is {source.state} and never began to train. Submit it again."
        raise HttpProblem(409, "not_investigable", detail)
    if (reason := why_not_investigable(JobSpec.model_validate(source.resolved))) is not None:
        raise HttpProblem(409, "not_investigable", f"{reason[0].upper()}{reason[1:]}.")
    if source.state == "failed" and (error := source.error or {}).get("code") != TRAINED:
        hint = error.get("hint") or "Submit it again."
        detail = f"The job failed, and not by its training: {error.get('code')}: {error.get('message')}. {hint}"
        raise HttpProblem(409, "not_investigable", detail)


def _check_budget(seconds: float | None, limits: JobLimits) -> None:
    if seconds is not None and limits.seconds and seconds > limits.seconds:
        hint = f"Take {limits.seconds:g} or less. The operator can raise TRAINKIT_MAX_JOB_SECONDS."
        message = f"a job may run for {limits.seconds:g} s; got {seconds:g}"
        raise SpecError([SpecProblem("/seconds", "takes_too_long", message, hint)])


def document_of(source: Job, seconds: float | None, runs: int | None) -> dict[str, Any]:
    """Return the document of an investigation: the source's, without what holds for that run alone."""
    if seconds is None and runs is None:
        begun, ended = source.started_at, source.finished_at
        seconds = default_seconds((ended - begun).total_seconds() if begun and ended else 0.0)
    document = lineage.spec_of(source)
    for name in ("group", "diagnose"):
        document.pop(name, None)
    resources = {name: value for name, value in (document.get("resources") or {}).items() if name != "max_seconds"}
    return {
        **document,
        "name": f"investigation of {source.name or source.id}"[:200],
        "resources": {**resources, "max_seconds": seconds} if seconds is not None else resources,
        "investigation": {"job": source.id, "seconds": seconds, "jobs": runs},
    }


@dataclass(frozen=True, slots=True)
class AutomaticInvestigation:
    """What follows from `diagnose: {investigate: auto}` at the end of a run, decided before the transaction of its end."""

    reason: str
    document: dict[str, Any] | None = None
    """None: no investigation is needed, or none is possible."""
    checked: CheckedSpec | None = None


def plan_automatic(
    context: Context, project_id: str, job_id: str, state: str, stop_reason: str | None, evaluation: Any
) -> AutomaticInvestigation | None:
    """Decide whether a run that is about to end as described is investigated; None where its spec does not ask.

    It is where the main verdict of its diagnosis is not `healthy`.
    """
    with reading(context.sessions) as session:
        job = repository.get(session, project_id, job_id)
        mode = ((job.resolved or {}).get("diagnose") or {}).get("investigate") if job is not None else None
        if job is None or mode != "auto" or job.investigation_of is not None:
            return None
        record = replace(record_of(session, job), state=state, stop_reason=stop_reason, evaluation=evaluation)
        code = diagnose(record).verdicts[0].code
        if code == "healthy":
            return AutomaticInvestigation("no investigation: the diagnosis is healthy")
        trained = (db_time(session) - job.started_at).total_seconds() if job.started_at else 0.0
        document = document_of(job, default_seconds(trained), None)
        who = service_principal(project_id, ACTOR)
        try:
            checked = jobs.check(session, who, document, limits_of(session, context.settings), investigates=True)
        except SpecError as error:
            return AutomaticInvestigation(f"no investigation of {code}: {error}")
        return AutomaticInvestigation(f"investigation of {code}", document, checked)


def begin_automatic(session: Session, context: Context, job_id: str, planned: AutomaticInvestigation) -> None:
    """Submit the planned investigation, in the transaction that ends the run: exactly once. An event tells of it.

    Where a limit of the project forbids it, the event says which.
    """
    source = repository.by_id(session, job_id)
    reason, data = planned.reason, None
    if planned.document is not None:
        who = service_principal(source.project_id, ACTOR)
        try:
            with savepoint(session):
                branch = Branch(source, "investigation", None)
                begun = jobs.admit(session, context, who, planned.document, branch, planned.checked)
            data = {"investigation": begun.id}
            after_commit(session, partial(context.doorbell.ring, jobs.QUEUE))
        except (HttpProblem, SpecError) as problem:
            reason = f"no {reason}: {problem.detail if isinstance(problem, HttpProblem) else problem}"
    repository.add_job_event(session, source, kind="diagnosis", reason=reason[:2000], actor=ACTOR, data=data)


@dataclass(frozen=True, slots=True)
class Investigations:
    """The investigations that a job's diagnosis shows."""

    newest: Job | None
    """The newest one that has ended with findings."""
    active: Job | None
    """The newest one that has not ended."""

    @property
    def version(self) -> tuple[str | None, ...]:
        """What changes when one begins or ends."""
        return tuple(None if job is None else job.id for job in (self.newest, self.active))

    @property
    def findings(self) -> Mapping[str, Any] | None:
        """What the newest one found."""
        return None if self.newest is None else findings_of(self.newest)


def investigations_of(session: Session, job: Job) -> Investigations:
    """Return a job's investigations; of an investigation itself that one, as far as it has findings."""
    if job.investigation_of is not None:
        return Investigations(job if findings_of(job) is not None else None, None)
    newest = repository.newest_investigation(session, job.project_id, job.id, ("succeeded", "stopped"))
    active = repository.newest_investigation(session, job.project_id, job.id, tuple(sorted(ACTIVE)))
    return Investigations(newest if newest is not None and findings_of(newest) is not None else None, active)


def findings_of(investigation: Job) -> Mapping[str, Any] | None:
    """Return what an investigation found; None while it has found nothing."""
    found: Mapping[str, Any] | None = (investigation.evaluation or {}).get("findings")
    return found
