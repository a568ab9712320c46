"""What moves an experiment on: ends are noted, the plan is asked, its next jobs are created as slots come free.

Reading and planning hold no lock. Each trial and its job are written together, under the lock of the experiment's row
and only while the trial is the next one; some trials to a transaction, so that others wait for some milliseconds. So a
trial is made once, however many planners run and whenever they die: what comes next is a function of the plan and of
the outcomes that were committed. Ends that come between two looks are found at the next one.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from service.context import Context
from service.database import db_time, in_short_transactions, reading
from service.datasets import repository as datasets
from service.errors import HttpProblem
from service.experiments import repository
from service.experiments.repository import ENDED
from service.experiments.results import validated
from service.experiments.sampling import draw
from service.experiments.strategies import NewTrial, PlanContext, TrialSnapshot, upcoming
from service.experiments.tables import Experiment, Trial
from service.experiments.trial_results import outcome_of
from service.failpoints import fp
from service.jobs import service as jobs
from service.jobs.limits import JobLimits, limits_of
from service.jobs.service import CheckedSpec
from service.jobs.states import ENDED as ENDED_JOBS
from service.jobs.tables import Job
from service.principal import Principal, service_principal
from service.workers.repository import train_slots
from trainkit.spec import DatasetFacts, SpecError, parse_spec
from trainkit.spec.experiments import (
    Autopilot,
    Baselines,
    EnsembleOf,
    KFold,
    MonteCarlo,
    Plan,
    Sampled,
    parse_experiment,
)
from trainkit.spec.facts import infer_task, is_classification
from trainkit.spec.failures import failure
from trainkit.spec.metrics import direction

log = logging.getLogger(__name__)
GOOD = ("succeeded", "stopped")
"""States of a job that can have a model."""
ROUND_SECONDS, ADVANCE_SECONDS = 3.0, 5.0
"""When a round of all experiments begins no further one, and when one is left at last; the next round goes on."""
MOST_NEW_JOBS = 16
"""Jobs of one experiment that are made before it is the next one's turn."""
AS_REQUESTED = "stopped as asked"
LEAST_UNDER_WAY = 8
"""Jobs of an experiment that may wait or run whatever there are of workers; else twice their slots, and `parallel`."""


def tick(context: Context) -> None:
    """Move experiments on, those of each project in turn, for ROUND_SECONDS; the next round goes on with the others.

    One that cannot be moved does not hold the others up, and ends with what was wrong with it.
    """
    with reading(context.sessions) as session:
        waiting = list(repository.due(session))
    random.shuffle(waiting)  # so that no experiment is always behind the end of a round
    nth: Counter[str] = Counter()
    places = {}
    for experiment_id, project_id in waiting:
        places[experiment_id] = nth[project_id]
        nth[project_id] += 1
    deadline = time.monotonic() + ROUND_SECONDS
    for experiment_id in sorted(places, key=places.__getitem__):
        if time.monotonic() > deadline:
            return
        try:
            advance(context, experiment_id)
        except DBAPIError:
            raise
        except Exception as error:
            log.exception("experiment %s cannot be moved on", experiment_id)
            _give_up(context, experiment_id, error)


def advance(context: Context, experiment_id: str, *, drawing: bool = True, seconds: float = ADVANCE_SECONDS) -> None:
    """Move one experiment on, by MOST_NEW_JOBS at most and for no longer than `seconds`.

    Reads and plans without a lock, and writes in short transactions. Without `drawing` the values of sampled trials
    are left to who may import what draws them.
    """
    deadline = time.monotonic() + seconds
    _note_ends(context, experiment_id)
    created, number = 0, None
    while True:
        step = _plan(context, experiment_id, drawing=drawing)
        if step is None or step.first == number:
            break  # nothing to do, or the step before it could not be taken: another planner is at work
        number = step.first
        if step.end is not None:
            _end(context, experiment_id, step)
            break
        children = step.children[: MOST_NEW_JOBS - created]
        created += _make(context, experiment_id, step, children, deadline)
        if not step.children or time.monotonic() > deadline or created >= MOST_NEW_JOBS:
            break
    if created:
        context.doorbell.ring(jobs.QUEUE)
    halt(context, experiment_id, deadline)


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """What comes next of an experiment, planned from what was committed: a function of the plan and the ended trials."""

    first: int
    """The next trial's number, which is how many there are."""
    children: Sequence[tuple[NewTrial, CheckedSpec | SpecError]] = ()
    end: tuple[str, str, str | None] | None = None
    """(state, reason, code of the error) of an experiment that is over."""
    has_pending: bool = False


def _plan(context: Context, experiment_id: str, *, drawing: bool) -> PlannedStep | None:
    """Return what is next; None when nothing is, or nothing can be yet."""
    with reading(context.sessions) as session:
        experiment = repository.find_by_id(session, experiment_id)
        if experiment is None or experiment.state in ENDED:
            return None
        trials = list(repository.trials(session, experiment_id))
        number, all_ended = len(trials), all(trial.outcome is not None for trial in trials)
        if experiment.state == "stopping":
            return PlannedStep(number, end=("stopped", experiment.reason or AS_REQUESTED, None)) if all_ended else None
        dataset = datasets.find_by_id(session, experiment.dataset_id)
        if dataset is None or dataset.state == "invalid":
            what = "was deleted" if dataset is None else "is not usable"
            reason = f"dataset {experiment.dataset_id} {what}"
            return PlannedStep(number, end=("failed", reason, "invalid_dataset"))
        plan = parse_experiment(experiment.plan)
        if dataset.state != "ready" or (isinstance(plan, Sampled) and not drawing):
            return None
        facts = DatasetFacts.model_validate(dataset.facts)
        metric = metric_of(plan, facts)
        sources = best_of(session, plan.experiment, metric, plan.members) if isinstance(plan, EnsembleOf) else ()
        past = [snapshot_of(trial, metric) for trial in trials]
        under_way = sum(not one.ended for one in past)
        room = max(0, max(LEAST_UNDER_WAY, 2 * train_slots(session)) - under_way)
        found = upcoming(PlanContext(plan, facts, metric, direction(metric), sources, draw), past, room)
        if not found.children and found.complete and all_ended:
            return PlannedStep(number, end=_end_of(past, found.reason))
        if not found.children and experiment.state == "running" and not experiment.has_pending:
            return None
        who = service_principal(experiment.project_id, experiment.actor)
        limits = limits_of(session, context.settings)
        children = [(one, _checked(session, who, experiment, one, limits)) for one in found.children[:MOST_NEW_JOBS]]
        return PlannedStep(number, children, has_pending=bool(found.children))


def _checked(
    session: Session, who: Principal, experiment: Experiment, child: NewTrial, limits: JobLimits
) -> CheckedSpec | SpecError:
    try:
        return jobs.check(session, who, {**child.document, **_job_fields(experiment, child)}, limits)
    except SpecError as error:
        return error


def _make(
    context: Context,
    experiment_id: str,
    step: PlannedStep,
    children: Sequence[tuple[NewTrial, CheckedSpec | SpecError]],
    deadline: float,
) -> int:
    """Make the planned trials with their jobs; returns how many jobs. Ends early where the step is not the next any more."""
    created = 0
    if not children:
        with context.sessions.begin() as session:
            if (experiment := _locked_at(session, experiment_id, step.first)) is not None:
                experiment.state, experiment.has_pending = "running", step.has_pending
        return 0

    def make(session: Session, item: tuple[int, tuple[NewTrial, CheckedSpec | SpecError]]) -> bool:
        nonlocal created
        number, (child, checked) = item
        experiment = _locked_at(session, experiment_id, number)
        if experiment is None:
            return False  # stopped, ended, or planned by another
        experiment.state, experiment.has_pending = "running", True
        trial = _make_trial(session, context, experiment, number, child, checked)
        created += trial is not None and trial.job_id is not None
        return trial is not None  # else the project's queue is full: go on when it is not

    in_short_transactions(context.sessions, enumerate(children, step.first), make, deadline)
    return created


def _locked_at(session: Session, experiment_id: str, number: int) -> Experiment | None:
    """The experiment, locked, while its next trial is `number` and it is not to be stopped."""
    experiment = repository.locked(session, experiment_id)
    if experiment is None or experiment.state in (*ENDED, "stopping"):
        return None
    return experiment if repository.count_trials(session, experiment_id) == number else None


def _note_ends(context: Context, experiment_id: str) -> None:
    """Keep what the trials that have ended came to. What that is, a diagnosis too, is read without a lock."""
    with reading(context.sessions) as session:
        experiment = repository.find_by_id(session, experiment_id)
        if experiment is None or experiment.state in ENDED:
            return
        awaited = repository.awaited_trials(session, experiment_id)
        if not awaited:
            return
        with_diagnosis = isinstance(parse_experiment(experiment.plan), Autopilot)
        found = repository.jobs_of(session, awaited)
        outcomes = [
            (trial.number, outcome)
            for trial in awaited
            if (outcome := outcome_of(session, found.get(trial.job_id or ""), with_diagnosis=with_diagnosis))
        ]

    def note(session: Session, item: tuple[int, dict[str, Any]]) -> None:
        repository.set_outcome(session, experiment_id, *item)

    in_short_transactions(context.sessions, outcomes, note)


def snapshot_of(trial: Trial, metric: str) -> TrialSnapshot:
    """A trial as plans see it."""
    outcome = trial.outcome or {}
    value = outcome.get("metrics", {}).get(metric) if outcome.get("state") in GOOD else None
    ended, state = trial.outcome is not None, outcome.get("state", "running")
    return TrialSnapshot(
        trial.number, trial.params, trial.spec, trial.job_id, ended, state, value, outcome, trial.rationale
    )


def metric_of(plan: Plan, facts: DatasetFacts) -> str:
    """What the trials' figures are about: of resampling and baselines the test part, if there is one; else validation."""
    if plan.metric is not None:
        return plan.metric
    if isinstance(plan, KFold | MonteCarlo | Baselines):
        spec = parse_spec(plan.spec)
        task = infer_task(spec, facts)
        tests = spec.split.test > 0 or (spec.split.use_predefined and (facts.splits or {}).get("test"))
        part = "test" if tests or isinstance(plan, Baselines) else "val"
        return f"{part}_accuracy" if task is not None and is_classification(task) else f"{part}_mse"
    return "val_loss"


def best_of(session: Session, experiment_id: str | None, metric: str, most: int) -> list[TrialSnapshot]:
    """The best trials of another experiment that have a model, by `metric` on the validation part, whatever its own part."""
    if experiment_id is None:
        return []
    metric = validated(metric)
    trials = [snapshot_of(trial, metric) for trial in repository.trials(session, experiment_id)]
    good = [one for one in trials if one.outcome.get("model") and one.value is not None]
    sign = 1 if direction(metric) == "min" else -1
    return sorted(good, key=lambda one: (sign * (one.value or 0.0), one.number))[:most]


def _make_trial(
    session: Session,
    context: Context,
    experiment: Experiment,
    number: int,
    child: NewTrial,
    checked: CheckedSpec | SpecError,
) -> Trial | None:
    """The trial and its job; a spec that is refused is a trial without a job. None while the project's queue is full.

    When the budget of the key that created the experiment is used up, no more trials begin, and those under way go on.
    """
    document = {**child.document, **_job_fields(experiment, child)}
    job_id, outcome = None, None
    who = service_principal(experiment.project_id, experiment.actor)
    try:
        if isinstance(checked, SpecError):
            raise checked
        job_id = jobs.admit(session, context, who, document, checked=checked).id
    except SpecError as error:
        problems = [problem.as_dict() for problem in error.problems]
        refusal = failure("invalid_spec", str(error), {"errors": problems}, hint=problems[0]["hint"] or None)
        outcome = {"state": "refused", "error": refusal, "metrics": {}}
    except HttpProblem as problem:
        if problem.code == "budget_used_up":
            experiment.state, experiment.requested_action = "stopping", "wait"
            experiment.reason = problem.detail[:500]
            return None
        if problem.status not in (413, 429) and problem.code != "budget_reserved":  # a full quota, a full queue
            raise
        return None
    fp("experiment_after_job")
    trial = Trial(
        experiment_id=experiment.id,
        number=number,
        job_id=job_id,
        params=child.params,
        rationale=child.why,
        spec=child.document,
        outcome=outcome,
        created_at=db_time(session),
    )
    repository.add_trial(session, trial)
    fp("experiment_after_trial")
    return trial


def _job_fields(experiment: Experiment, child: NewTrial) -> dict[str, Any]:
    settings = " ".join(f"{key.rpartition('/')[2]} {_short(value)}" for key, value in child.params.items())
    name = f"{child.document.get('name') or experiment.name or experiment.kind}: {settings}"
    labels: Mapping[str, Any] = child.document.get("labels") or {}
    return {"name": name[:200], "labels": {**experiment.labels, **labels}, "group": experiment.id}


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:40]


def _end_of(past: Sequence[TrialSnapshot], reason: str) -> tuple[str, str, str | None]:
    states = [one.state for one in past]
    if any(state in GOOD for state in states):
        return "succeeded", reason, None
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "there were none"
    return "failed", f"none of the experiment's jobs came to a good end: {counted}", "no_trial_succeeded"


def _end(context: Context, experiment_id: str, step: PlannedStep) -> None:
    """End the experiment, unless it has gone on or was stopped since that was planned."""
    assert step.end is not None
    state, reason, code = step.end
    with context.sessions.begin() as session:
        experiment = repository.locked(session, experiment_id)
        if experiment is None or experiment.state in ENDED or (experiment.state == "stopping") != (state == "stopped"):
            return
        if repository.count_trials(session, experiment_id) == step.first:
            _write_end(session, experiment, state, reason, code)


def _write_end(session: Session, experiment: Experiment, state: str, reason: str, code: str | None) -> None:
    experiment.error = None if code is None else failure(code, reason)
    experiment.state, experiment.reason = state, reason[:500]
    experiment.finished_at = experiment.updated_at = db_time(session)
    session.flush()


def _give_up(context: Context, experiment_id: str, error: Exception) -> None:
    with context.sessions.begin() as session:
        experiment = repository.locked(session, experiment_id)
        if experiment is not None and experiment.state not in ENDED:
            message = f"the experiment cannot be planned on: {type(error).__name__}: {error}"
            _write_end(session, experiment, "failed", message, "internal_error")


def halt(context: Context, experiment_id: str, deadline: float | None = None) -> None:
    """Stop what a stopped experiment still has under way, as was asked for, until the monotonic `deadline`. Idempotent."""
    with reading(context.sessions) as session:
        experiment = repository.find_by_id(session, experiment_id)
        if experiment is None or experiment.state != "stopping":
            return
        found = list(repository.jobs_of(session, repository.awaited_trials(session, experiment_id)).values())
    who = service_principal(experiment.project_id, experiment.actor)

    def end(session: Session, job: Job) -> None:
        waits = job.started_at is None and job.state in ("validating", "queued", "paused")
        if experiment.requested_action == "cancel" or (waits and experiment.requested_action == "finish"):
            jobs.cancel(session, who, job.id)
        elif experiment.requested_action == "stop" or job.state == "paused":
            jobs.stop(session, who, job.id, "best", None)

    to_end = [job for job in found if job.state not in ENDED_JOBS]
    in_short_transactions(context.sessions, to_end, end, deadline)
