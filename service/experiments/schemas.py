"""Wire format of experiments."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from service.experiments.results import TrialRow, comparisons, summaries, validated
from service.experiments.service import ExperimentView
from service.experiments.tables import Experiment
from service.jobs.spec_references import as_written
from service.request_model import RequestModel
from trainkit.spec.metrics import direction

ExperimentState = Literal["waiting", "running", "stopping", "succeeded", "stopped", "failed"]


class StopExperimentIn(RequestModel):
    """What becomes of jobs that have begun."""

    running: Literal["stop", "cancel", "finish"] = "stop"
    """`stop`: end gracefully and keep a model; `cancel`: end now and keep nothing; `finish`: train to their end."""


class BestOut(BaseModel):
    """The trial that is the best by the validation part, with its figure of the experiment's metric."""

    number: int
    job: str | None
    model: str | None
    chosen_by: str
    chosen_value: float | None
    value: float | None


class ExperimentOut(BaseModel):
    """An experiment; fields may be added, never renamed."""

    id: str
    name: str
    kind: str
    state: ExperimentState
    reason: str | None
    """Why it ended as it did."""
    error: dict[str, Any] | None
    labels: dict[str, str]
    plan: dict[str, Any]
    """As it was submitted."""
    dataset: str
    created_at: datetime
    finished_at: datetime | None
    updated_at: datetime


class ExperimentDetail(ExperimentOut):
    """With what its jobs have come to so far."""

    metric: str | None
    """What the trials are told apart by; null until the dataset has been checked."""
    direction: Literal["min", "max"] | None
    jobs: dict[str, int]
    """State -> jobs in it; `refused`: the plan came to a spec that the service does not take."""
    best: BestOut | None
    summaries: list[dict[str, Any]]
    """Of each variant `{variant, metric, models, n, mean, sd, se, low, high, confidence, test_share}`; folds and draws
    have one of their validation parts (`val_`) and one of the common test part (`test_`). `models: one_per_trial`:
    a mean over the trials' own models, and not the metric of an ensemble of them."""
    comparisons: list[dict[str, Any]]
    """Each variant against the spec itself, in pairs on the same draws, by their validation parts."""


class TrialOut(BaseModel):
    """One trial; while `final` is false its metrics are the newest of the log and may get worse again."""

    number: int
    job: str | None
    state: str
    final: bool
    params: dict[str, Any]
    value: float | None
    """The experiment's metric, of the weights that were kept."""
    metrics: dict[str, float]
    stop_reason: str | None
    error: dict[str, Any] | None
    model: str | None
    best_epoch: int | None
    seconds: float | None
    progress: dict[str, Any] | None
    why: dict[str, Any] | None


class ResultsOut(BaseModel):
    """The live table, by number, and what its figures say together."""

    id: str
    state: ExperimentState
    metric: str | None
    direction: Literal["min", "max"] | None
    data: list[TrialOut]
    best: BestOut | None
    summaries: list[dict[str, Any]]
    comparisons: list[dict[str, Any]]
    steps: list[dict[str, Any]] | None
    """Autopilot: what was seen, done, expected and measured at each step, in fields and as a `text`."""


class ComparisonOut(BaseModel):
    """Whether B is better than A, of figures on the same cuts of the same data."""

    model_config = ConfigDict(extra="allow")
    a: str
    b: str
    verdict: Literal["better", "worse", "cannot_tell"]
    summary: str
    metric: str
    n: int
    difference: float | None
    low: float | None
    high: float | None
    p: float | None


def experiment_out(row: Experiment) -> ExperimentOut:
    """A row as scripts read it."""
    return ExperimentOut(**_fields(row))


def detail_out(view: ExperimentView) -> ExperimentDetail:
    """The same, with what its jobs have come to."""
    states = [line.state for line in view.lines]
    counted = {state: states.count(state) for state in dict.fromkeys(states)}
    return ExperimentDetail(**_fields(view.row), jobs=counted, **_together(view))


def results_out(view: ExperimentView) -> ResultsOut:
    """The table."""
    data = [trial_out(line) for line in view.lines]
    return ResultsOut(id=view.row.id, state=view.row.state, data=data, steps=view.steps, **_together(view))


def trial_out(line: TrialRow) -> TrialOut:
    """A row of the table."""
    return TrialOut(**{name: getattr(line, name) for name in TrialOut.model_fields})


def _together(view: ExperimentView) -> dict[str, Any]:
    metric = view.metric
    if metric is None:
        return {"metric": None, "direction": None, "best": None, "summaries": [], "comparisons": []}
    return {
        "metric": metric,
        "direction": direction(metric),
        "best": _best_out(view, metric),
        "summaries": summaries(view.plan, view.facts, view.lines, metric),
        "comparisons": comparisons(view.plan, view.facts, view.lines, metric),
    }


def _best_out(view: ExperimentView, metric: str) -> BestOut | None:
    line, chosen_by = view.best, validated(metric)
    if line is None:
        return None
    return BestOut(
        number=line.number,
        job=line.job,
        model=line.model,
        chosen_by=chosen_by,
        chosen_value=line.metrics.get(chosen_by),
        value=line.value,
    )


def _fields(row: Experiment) -> dict[str, Any]:
    fields = (
        "id",
        "name",
        "kind",
        "state",
        "reason",
        "error",
        "labels",
        "created_at",
        "finished_at",
        "updated_at",
    )
    shown = {"dataset": row.dataset_id, "plan": as_written(row.plan, row.reference_names)}
    return {name: getattr(row, name) for name in fields} | shown
