"""Rules of experiments: admission, stop, deletion, and what is told of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from service.context import Context
from service.database import db_time, new_id, reading
from service.datasets import repository as datasets
from service.errors import HttpProblem, not_found
from service.experiments import repository, scheduler
from service.experiments.repository import ENDED
from service.experiments.results import TrialRow, best, trial_row
from service.experiments.scheduler import metric_of
from service.experiments.strategies import explain_autopilot, placed, resampled_split, resampled_trials
from service.experiments.tables import Experiment
from service.jobs import service as jobs
from service.jobs.idempotency import idempotent, is_known
from service.jobs.limits import limits_of
from service.jobs.spec_references import resolve_plan
from service.notes import repository as notes
from service.principal import Principal
from trainkit.spec import DatasetFacts, ResolvedSpec, SpecError
from trainkit.spec import Problem as SpecProblem
from trainkit.spec.experiments import (
    Autopilot,
    EnsembleOf,
    Grid,
    KFold,
    MonteCarlo,
    Plan,
    Range,
    Sampled,
    Sweep,
    parse_experiment,
)
from trainkit.spec.facts import is_classification
from trainkit.spec.metrics import CLASSIFICATION_METRICS, REGRESSION_METRICS, split_metric
from trainkit.spec.patch import merge_patch
from trainkit.spec.split import SplitSpec

SAME_ROWS = ("train", "validation", "test", "stratify", "seed", "resample_seed", "use_predefined", "folds", "fold")
"""Fields of `split` that decide which rows are test, training and validation."""
MOST_SAMPLES = 200
"""Specs of a plan that are checked when it is submitted; a trial whose spec is refused later says so."""


@dataclass(frozen=True, slots=True)
class ExperimentView:
    """An experiment with all that is told of it."""

    row: Experiment
    plan: Plan | None
    """None of one that this version of the service cannot carry out any more."""
    plan_error: str | None
    """Why not."""
    facts: DatasetFacts | None
    metric: str | None
    """None while the dataset is being checked and the plan names none."""
    lines: list[TrialRow]
    best: TrialRow | None
    steps: list[dict[str, Any]] | None
    """Autopilot's account."""


FIRST_SECONDS, STOP_SECONDS = 5.0, 5.0
"""How long a request makes or ends jobs at most; housekeeping does the rest."""


def create(context: Context, who: Principal, document: Any, idempotency_key: str | None) -> tuple[Experiment, bool]:
    """Make an experiment, then as many of its jobs as FIRST_SECONDS allow. Returns (experiment, whether it is new).

    The plan is checked before the transaction that writes it: nobody waits for that. Raises SpecError for everything
    wrong with the plan or with the jobs that it can be seen to make.
    """
    plan = parse_experiment(document)
    with reading(context.sessions) as session:
        replayed = idempotency_key is not None and is_known(session, who.project_id, idempotency_key)
        checked = None if replayed else _check(session, context, who, document)

    def make(session: Session) -> Experiment:
        known = _check(session, context, who, document) if checked is None else checked
        now = db_time(session)
        experiment = Experiment(
            id=new_id("exp"),
            project_id=who.project_id,
            actor=who.actor,
            name=plan.name,
            kind=plan.kind,
            labels=dict(plan.labels),
            plan=known.document,
            reference_names=known.reference_names or None,
            dataset_id=known.dataset_id,
            state="waiting",
            created_at=now,
            updated_at=now,
        )
        repository.add(session, experiment)
        return experiment

    def find(session: Session, experiment_id: str) -> Experiment | None:
        return repository.get(session, who.project_id, experiment_id)

    with context.sessions.begin() as session:
        experiment, new = idempotent(session, who.project_id, idempotency_key, document, make, find)
    if new:
        scheduler.advance(context, experiment.id, drawing=False, seconds=FIRST_SECONDS)
    return experiment, new


@dataclass(frozen=True, slots=True)
class CheckedPlan:
    """A plan that can be carried out."""

    document: dict[str, Any]
    """As submitted, with an id in place of each reference by name."""
    reference_names: dict[str, str]
    dataset_id: str


def _check(session: Session, context: Context, who: Principal, document: Any) -> CheckedPlan:
    """The plan with its references resolved, if it can be carried out."""
    named = resolve_plan(session, who.project_id, document)
    if named.problems:
        raise SpecError(named.problems)
    dataset_id = _check_resolved(session, context, who, parse_experiment(named.document))
    return CheckedPlan(named.document, named.names, dataset_id)


def _check_resolved(session: Session, context: Context, who: Principal, plan: Plan) -> str:
    """The dataset's id, if the plan can be carried out."""
    if isinstance(plan, EnsembleOf) and plan.experiment is not None:
        return _check_source(session, who, plan, plan.experiment)
    if "group" in plan.spec:
        hint = "Leave it out: the group of the jobs is the experiment's id."
        message = "the service sets the group of an experiment's jobs"
        raise SpecError([SpecProblem("/spec/group", "set_by_the_service", message, hint)])
    limits = limits_of(session, context.settings)
    try:
        checked = jobs.check(session, who, plan.spec, limits)
    except SpecError as error:
        raise SpecError([replace(one, pointer=f"/spec{one.pointer}") for one in error.problems]) from None
    found = [] if checked.resolved is None else list(_metric_problems(plan, checked.resolved))
    if isinstance(plan, KFold | MonteCarlo):
        found += _resampling_problems(plan)
    for where, label, tried in islice(_sample_specs(plan), MOST_SAMPLES):
        try:
            jobs.check(session, who, tried, limits)
        except SpecError as error:
            found += [
                replace(one, pointer=where, message=f"{label}: {one.pointer}: {one.message}") for one in error.problems
            ]
    if found:
        raise SpecError(found)
    return checked.dataset.id


def _sample_specs(plan: Plan) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(where, what, spec) of the jobs that can be seen: each variant, each value or end of a range, one at a time."""
    if isinstance(plan, KFold | MonteCarlo):
        for name, patch in plan.variants.items():
            yield f"/variants/{name}", f"variant {name}", merge_patch(plan.spec, patch)
        where, label = ("/folds", "a fold") if isinstance(plan, KFold) else ("/draws", "a draw")
        yield where, label, next(resampled_trials(plan)).document
    if isinstance(plan, Grid | Sampled):
        for pointer, values in plan.space.items():
            escaped = pointer.replace("~", "~0").replace("/", "~1")
            for value in values.ends if isinstance(values, Range) else values:
                yield f"/space/{escaped}", f"with {value!r}", placed(plan.spec, {pointer: value})


def _resampling_problems(plan: KFold | MonteCarlo) -> Iterator[SpecProblem]:
    """Variants that would be measured on other rows, and draws without a validation part to choose the weights by."""
    base = SplitSpec.model_validate(resampled_split(plan, plan.spec))
    if isinstance(plan, MonteCarlo) and not base.validation:
        hint = 'Give `validation` a share, as in "8:1:1"; left out, 80 % train and 20 % validate.'
        message = "each draw needs a validation part, by which its best weights are chosen"
        yield SpecProblem("/spec/split/validation", "no_validation", message, hint)
    for name, patch in plan.variants.items():
        document = merge_patch(plan.spec, patch)
        try:
            resampled = SplitSpec.model_validate(resampled_split(plan, document))
        except ValidationError:
            continue  # the check of the variant as a job says what is wrong
        changed = [f"split.{field}" for field in SAME_ROWS if getattr(resampled, field) != getattr(base, field)]
        changed += [field for field in ("dataset", "task") if _rows_of(document, field) != _rows_of(plan.spec, field)]
        if changed:
            message = f"the variant changes {', '.join(changed)}: it would not be measured on the same rows as `spec`"
            hint = "Change this in `spec`, for all variants, or make another experiment."
            yield SpecProblem(f"/variants/{name}", "different_rows", message, hint)


def _rows_of(document: Mapping[str, Any], field: str) -> Any:
    """What decides the rows and their strata: of `dataset` all but the columns to learn from."""
    value = document.get(field)
    if field == "dataset" and isinstance(value, dict):
        return {name: value[name] for name in value.keys() - {"features", "ignore"} if value[name] is not None}
    return {"id": value} if field == "dataset" else value


def _metric_problems(plan: Plan, resolved: ResolvedSpec) -> Iterator[SpecProblem]:
    spec = resolved.spec
    task = spec.task or "classification"
    names = CLASSIFICATION_METRICS if is_classification(task) else REGRESSION_METRICS
    if plan.metric is not None and split_metric(plan.metric)[1] not in names:
        message = f"{plan.metric} is not measured in {task}"
        yield SpecProblem("/metric", "not_measured", message, f"Measured: {', '.join(names)}.")
    if isinstance(plan, Sweep | EnsembleOf) and spec.train.monitor is None:
        hint = "Give split.validation a share."
        yield SpecProblem(
            "/spec/split", "no_validation", "trials are told apart by the validation part: there is none", hint
        )


def _check_source(session: Session, who: Principal, plan: EnsembleOf, experiment_id: str) -> str:
    source = repository.get(session, who.project_id, experiment_id)
    problem = None
    if source is None:
        hint = "GET /v1/experiments lists the experiments of this project."
        problem = SpecProblem("/experiment", "unknown_experiment", f"there is no experiment {experiment_id!r}", hint)
    elif source.state not in ENDED:
        problem = SpecProblem("/experiment", "not_ended", f"it is {source.state}", "Wait until it has ended.")
    elif not _has_common_test_part(session, source):
        message = "its jobs have no test part in common: each was trained on what others validated"
        hint = "Give its `spec.split` a test share, or take the jobs of another kind of experiment."
        problem = SpecProblem("/experiment", "no_test_part", message, hint)
    elif len(scheduler.best_of(session, source.id, plan.metric or "val_loss", plan.members)) < 2:
        message = "fewer than two of its jobs have a model and a figure"
        problem = SpecProblem("/experiment", "too_few_members", message, "Take another experiment.")
    if problem is not None:
        raise SpecError([problem])
    assert source is not None
    return source.dataset_id


def _has_common_test_part(session: Session, source: Experiment) -> bool:
    """Whether the models of folds and draws can be measured together; other kinds have one split for all jobs."""
    plan, dataset = parse_experiment(source.plan), datasets.find_by_id(session, source.dataset_id)
    if not isinstance(plan, KFold | MonteCarlo) or dataset is None or dataset.facts is None:
        return True
    facts = DatasetFacts.model_validate(dataset.facts)
    split = SplitSpec.model_validate(next(resampled_trials(plan)).document["split"])
    return split.sizes(facts.samples, facts.splits)[2] > 0


def find(session: Session, who: Principal, experiment_id: str) -> Experiment:
    """The project's experiment. Raises a 404 problem."""
    found = repository.get(session, who.project_id, experiment_id)
    if found is None:
        raise not_found("experiment", experiment_id)
    return found


def view(session: Session, experiment: Experiment, metric: str | None = None) -> ExperimentView:
    """The experiment with its table, told by `metric` if one is named. Raises a 422 problem for an unknown one."""
    if metric is not None:
        try:
            split_metric(metric)
        except ValueError as error:
            raise HttpProblem(422, "unknown_metric", f"{str(error)[:1].upper()}{str(error)[1:]}.") from None
    plan, plan_error = _stored_plan(experiment)
    facts = _facts(session, experiment)
    by = metric or _metric(experiment, plan, facts)
    trials = repository.trials(session, experiment.id)
    jobs = repository.jobs_of(session, trials)
    lines = [trial_row(one, jobs.get(one.job_id or ""), by or "") for one in trials]
    if isinstance(plan, Autopilot) and facts is not None:
        steps, chosen = explain_autopilot(facts, [scheduler.snapshot_of(one, by or "") for one in trials])
        chosen_line = None if chosen is None else lines[chosen]
        return ExperimentView(experiment, plan, plan_error, facts, by, lines, chosen_line, steps)
    chosen_line = best(lines, by) if by is not None else None
    return ExperimentView(experiment, plan, plan_error, facts, by, lines, chosen_line, None)


def default_metric(session: Session, experiment: Experiment) -> str | None:
    """Return the metric that its trials are told apart by; None while its dataset is being checked."""
    return _metric(experiment, _stored_plan(experiment)[0], _facts(session, experiment))


def _metric(experiment: Experiment, plan: Plan | None, facts: DatasetFacts | None) -> str | None:
    if plan is None:
        named = experiment.plan.get("metric")
        return named if isinstance(named, str) else None
    return plan.metric or (metric_of(plan, facts) if facts is not None else None)


def _facts(session: Session, experiment: Experiment) -> DatasetFacts | None:
    dataset = datasets.find_by_id(session, experiment.dataset_id)
    return DatasetFacts.model_validate(dataset.facts) if dataset is not None and dataset.facts is not None else None


def _stored_plan(experiment: Experiment) -> tuple[Plan | None, str | None]:
    """Return the plan, or why it is none: a later version of the service may have other rules than it was checked by."""
    try:
        return parse_experiment(experiment.plan), None
    except SpecError as error:
        return None, f"This version of the service cannot carry out the plan: {error}"


def stop(context: Context, who: Principal, experiment_id: str, running: str) -> Experiment:
    """Make no more jobs, and end those under way as asked. Idempotent; an ended experiment stays as it ended.

    Jobs are ended in short transactions, for STOP_SECONDS; housekeeping ends the others.
    """
    with context.sessions.begin() as session:
        find(session, who, experiment_id)
        experiment = repository.locked(session, experiment_id)
        assert experiment is not None
        if experiment.state in ENDED:
            return experiment
        experiment.state, experiment.requested_action = "stopping", running
        experiment.updated_at = db_time(session)
    scheduler.halt(context, experiment_id, time.monotonic() + STOP_SECONDS)
    scheduler.advance(context, experiment_id)
    with reading(context.sessions) as session:
        return find(session, who, experiment_id)


def delete(session: Session, who: Principal, experiment_id: str) -> None:
    """Remove an ended experiment; its jobs stay, and with them its notes."""
    experiment = find(session, who, experiment_id)
    if experiment.state not in ENDED:
        raise HttpProblem(409, "wrong_state", f"The experiment is {experiment.state}: stop it first.")
    repository.delete_experiment(session, experiment)
    session.flush()
    notes.delete_without_jobs(session, who.project_id, experiment_id)
