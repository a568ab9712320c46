"""What moves an experiment on: ends are noted, the plan is asked, the jobs that it wants are made.

One transaction holds the experiment's row and all of that, so it happens once or not at all, however many engines run
and whenever they die. Ends that come between two looks are found at the next one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from service.context import Context
from service.database import db_time, reading
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
from service.keys.service import Principal
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
from trainkit.spec.metrics import direction

log = logging.getLogger(__name__)
GOOD = ("succeeded", "stopped")
"""States of a job that can have a model."""
MAX_NEW_JOBS = 50
"""Jobs made in one transaction, for others wait for it on SQLite."""


def tick(context: Context) -> None:
    """Move all experiments on. One that cannot be does not hold the others up, and ends with what was wrong with it."""
    with reading(context.sessions) as session:
        waiting = repository.due(session)
    for experiment_id in waiting:
        try:
            advance(context, experiment_id)
        except DBAPIError:
            raise
        except Exception as error:
            log.exception("experiment %s cannot be moved on", experiment_id)
            _give_up(context, experiment_id, error)


def advance(context: Context, experiment_id: str) -> None:
    """Move one experiment on as far as it goes now."""
    with context.sessions.begin() as session:
        experiment = repository.locked(session, experiment_id)
        if experiment is None or experiment.state in ENDED:
            return
        created = step(session, context, experiment)
        stopping = experiment.state == "stopping"
    if created:
        context.doorbell.ring(jobs.QUEUE)
    if stopping:
        halt(context, experiment_id)


def step(session: Session, context: Context, experiment: Experiment, *, drawing: bool = True) -> int:
    """Note what has ended and make what is next, in the caller's transaction; returns how many jobs were made.

    Without `drawing` the values of sampled trials are left to who may import what draws them.
    """
    plan = parse_experiment(experiment.plan)
    trials = list(repository.trials(session, experiment.id))
    note_ends(session, plan, trials)
    if experiment.state == "stopping":
        if all(trial.outcome is not None for trial in trials):
            _end(session, experiment, "stopped", "stopped as asked")
        return 0
    dataset = datasets.find_by_id(session, experiment.dataset_id)
    if dataset is None or dataset.state == "invalid":
        what = "was deleted" if dataset is None else "is not usable"
        _fail(session, experiment, "invalid_dataset", f"dataset {experiment.dataset_id} {what}")
        return 0
    if dataset.state != "ready" or (isinstance(plan, Sampled) and not drawing):
        return 0
    experiment.state = "running"
    facts = DatasetFacts.model_validate(dataset.facts)
    return _make_next(session, context, experiment, plan, facts, trials)


def _make_next(
    session: Session, context: Context, experiment: Experiment, plan: Plan, facts: DatasetFacts, trials: list[Trial]
) -> int:
    metric = metric_of(plan, facts)
    sources = best_of(session, plan.experiment, metric, plan.members) if isinstance(plan, EnsembleOf) else ()
    plan_context = PlanContext(plan, facts, metric, direction(metric), sources, draw)
    created, before = 0, len(trials)
    while len(trials) - before < MAX_NEW_JOBS:
        past = [snapshot_of(trial, metric) for trial in trials]
        found = upcoming(plan_context, past)
        experiment.has_pending = bool(found.children)
        if not found.children:
            if found.complete and all(one.ended for one in past):
                _finish(session, experiment, past, found.reason)
            break
        for child in found.children:
            trial = _make(session, context, experiment, len(trials), child)
            if trial is None:
                return created  # the project's queue is full: go on when it is not
            trials.append(trial)
            created += trial.job_id is not None
    return created


def note_ends(session: Session, plan: Plan, trials: Sequence[Trial]) -> None:
    """Keep what the trials that have ended came to."""
    awaited = [trial for trial in trials if trial.outcome is None]
    found = repository.jobs_of(session, awaited)
    for trial in awaited:
        job = found.get(trial.job_id or "")
        trial.outcome = outcome_of(session, job, with_diagnosis=isinstance(plan, Autopilot))
    session.flush()


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


def _make(session: Session, context: Context, experiment: Experiment, number: int, child: NewTrial) -> Trial | None:
    """The trial and its job; a spec that is refused is a trial without a job. None while the project's queue is full."""
    document = {**child.document, **_job_fields(experiment, child)}
    job_id, outcome = None, None
    who = Principal(experiment.key_id, experiment.project_id, frozenset({"write"}))
    try:
        job_id = jobs.admit(session, context, who, document).id
    except SpecError as error:
        problems = [problem.as_dict() for problem in error.problems]
        problem_json = {"code": "invalid_spec", "message": str(error), "errors": problems}
        outcome = {"state": "refused", "error": problem_json, "metrics": {}}
    except HttpProblem as problem:
        if problem.status != 429:
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


def _finish(session: Session, experiment: Experiment, past: Sequence[TrialSnapshot], reason: str) -> None:
    states = [one.state for one in past]
    if any(state in GOOD for state in states):
        _end(session, experiment, "succeeded", reason)
        return
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "there were none"
    _fail(session, experiment, "no_trial_succeeded", f"none of the experiment's jobs came to a good end: {counted}")


def _fail(session: Session, experiment: Experiment, code: str, message: str) -> None:
    experiment.error = {"code": code, "message": message}
    _end(session, experiment, "failed", message)


def _end(session: Session, experiment: Experiment, state: str, reason: str) -> None:
    experiment.state, experiment.reason = state, reason[:500]
    experiment.finished_at = experiment.updated_at = db_time(session)
    session.flush()


def _give_up(context: Context, experiment_id: str, error: Exception) -> None:
    with context.sessions.begin() as session:
        experiment = repository.locked(session, experiment_id)
        if experiment is not None and experiment.state not in ENDED:
            message = f"the experiment cannot be planned on: {type(error).__name__}: {error}"
            _fail(session, experiment, "internal", message)


def halt(context: Context, experiment_id: str) -> None:
    """Stop what a stopped experiment still has under way, as was asked for. Idempotent."""
    with reading(context.sessions) as session:
        experiment = repository.by_id(session, experiment_id)
        trials = [trial for trial in repository.trials(session, experiment_id) if trial.outcome is None]
        found = list(repository.jobs_of(session, trials).values())
    who = Principal(experiment.key_id, experiment.project_id, frozenset({"write"}))
    for job in found:
        waits = job.started_at is None and job.state in ("validating", "queued", "paused")
        with context.sessions.begin() as session:
            if experiment.requested_action == "cancel" or (waits and experiment.requested_action == "finish"):
                jobs.cancel(session, who, job.id)
            elif experiment.requested_action == "stop" or job.state == "paused":
                jobs.stop(session, who, job.id, "best", None)
