"""Wire format of experiments."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from service.experiments.results import TrialRow, comparisons, summaries, validated
from service.experiments.service import ExperimentView
from service.experiments.tables import Experiment
from service.jobs.schemas import ProgressOut
from service.jobs.spec_references import as_written
from service.request_model import RequestModel
from service.response_model import FailureOut, JsonObject, PlanDocument, ResponseModel, StoredDocument
from service.timestamps import Timestamp
from trainkit.spec.metrics import direction

ExperimentState = Literal["waiting", "running", "stopping", "succeeded", "stopped", "failed"]


class StopExperimentIn(RequestModel):
    """What becomes of jobs that have begun."""

    running: Literal["stop", "cancel", "finish"] = "stop"
    """`stop`: end gracefully and keep a model; `cancel`: end now and keep nothing; `finish`: train to their end."""


class SignedRankOut(ResponseModel):
    """Wilcoxon's signed-rank test."""

    statistic: float
    """Sum of the positive ranks."""
    p: float
    """Exact, two-sided."""
    n: int
    """Differences other than 0."""


class ComparisonOut(ResponseModel):
    """Whether B is better than A, of figures on the same cuts of the same data."""

    a: str
    b: str
    verdict: Literal["better", "worse", "cannot_tell"]
    summary: str
    metric: str
    better: Literal["min", "max"]
    n: int
    difference: float | None
    """Of B - A, like the interval from `low` to `high`."""
    low: float | None
    high: float | None
    p: float | None
    """Two-sided; corrected for shared training data where `test_share` is known."""
    paired_t_p: float | None
    """Of the plain paired t-test: too small where training data is shared."""
    test_share: float | None
    """Samples that were tested for each that was trained on."""
    wilcoxon: SignedRankOut | None
    wins: int
    """Cuts on which B is better."""
    ties: int
    losses: int
    not_finite: list[int]
    """Cuts whose value is not finite."""


class VariantSummaryOut(ResponseModel):
    """Mean of a metric over the trials of a variant, with Student's interval."""

    variant: str
    metric: str
    models: Literal["one_per_trial"]
    """A mean over the trials' own models, and not the metric of an ensemble of them."""
    n: int
    mean: float | None
    sd: float | None
    """Null for a single value, like `se`, `low` and `high`; all are null where a value is not finite."""
    se: float | None
    low: float | None
    high: float | None
    confidence: float
    not_finite: list[int]
    test_share: float | None
    """Samples that were tested for each that was trained on, by which `se` is corrected."""
    without_figure: int
    """Ended trials of the variant that have no value."""


class ReplicatesOut(ResponseModel):
    """Jobs whose specs differ in seeds and folds alone, with the mean of a metric and Student's interval.

    The figures are of jobs that have ended well, of the weights that each kept.
    """

    key: str
    """The `replicate_key` of its jobs."""
    name: str
    """What the names of its jobs have in common."""
    jobs: list[str]
    n: int
    """Jobs with a figure; jobs with the same seed and split count once."""
    mean: float | None
    sd: float | None
    """Null for a single value, like `se`, `low` and `high`; all are null where a value is not finite."""
    se: float | None
    low: float | None
    high: float | None
    confidence: float
    not_finite: list[int]
    test_share: float | None
    """Of different splits: samples validated on for each trained on, by which `se` is corrected."""
    comparison: ComparisonOut | None
    """With the baseline, on pairs of the same dataset, split and seed; null of the baseline itself."""
    p_adjusted: float | None
    """`comparison.p` by Holm's method: it holds for all groups of the answer together."""
    not_compared: str | None
    """Why there is no comparison."""


class JobsComparisonOut(ResponseModel):
    """Jobs in groups of replicates, compared with the group of a baseline."""

    metric: str
    better: Literal["min", "max"]
    baseline: str
    """The key of the baseline's group."""
    groups: list[ReplicatesOut]


class TrialReasonOut(StoredDocument):
    """What a step of the autopilot changed, and why."""

    patch: JsonObject = {}
    """A JSON merge patch of the spec of the run that it starts from."""
    why: str = ""
    source: int | None = None
    """Number of the run that it starts from."""
    kind: str = ""
    code: str = ""
    """By `kind`: the verdict, the code of the error, or the name of the heuristic."""
    expected: dict[str, str] = {}


class MetricChangeOut(ResponseModel):
    """Change of a metric between two runs."""

    metric: str
    before: float | None
    after: float | None
    gain: float | None
    """Above 0: better. It counts where it exceeds `noise`."""
    noise: float | None
    outcome: str


class SkippedRecommendationOut(ResponseModel):
    """A recommendation that the autopilot does not apply."""

    code: str
    patch: JsonObject
    why: str
    reason: str


class AutopilotStepOut(ResponseModel):
    """What was seen, done, expected and measured in one step."""

    index: int
    from_: int | None = Field(alias="from")
    """The run that it starts from."""
    kind: str
    code: str
    observation: str
    patch: JsonObject
    why: str
    expected: dict[str, str] | None
    state: str
    measured: MetricChangeOut | None
    """Compared with the run that it starts from."""
    best: int | None
    """The best run after this step."""
    verdicts: list[str]
    skipped_recommendations: list[SkippedRecommendationOut]
    text: str


class BestOut(ResponseModel):
    """The trial that is the best by the validation part, with its figure of the experiment's metric."""

    number: int
    job: str | None
    model: str | None
    chosen_by: str
    chosen_value: float | None
    value: float | None


class ExperimentRow(ResponseModel):
    """An experiment in a list."""

    id: str
    name: str
    kind: str
    state: ExperimentState
    reason: str | None
    """Why it ended as it did."""
    error: FailureOut | None
    labels: dict[str, str]
    dataset: str
    created_at: Timestamp
    finished_at: Timestamp | None
    updated_at: Timestamp


class ExperimentOut(ExperimentRow):
    """An experiment; fields may be added, never renamed."""

    plan: PlanDocument
    """As it was submitted."""


class ExperimentDetail(ExperimentOut):
    """With what its jobs have come to so far."""

    plan_error: str | None = None
    """Why this version of the service cannot carry out the plan any more; null where it can."""
    metric: str | None
    """What the trials are told apart by; null until the dataset has been checked."""
    direction: Literal["min", "max"] | None
    jobs: dict[str, int]
    """State -> jobs in it; `refused`: the plan came to a spec that the service does not take."""
    best: BestOut | None
    summaries: list[VariantSummaryOut]
    """Folds and draws have one of their validation parts (`val_`) and one of the common test part (`test_`)."""
    comparisons: list[ComparisonOut]
    """Each variant against the spec itself, in pairs on the same draws, by their validation parts."""


class TrialOut(ResponseModel):
    """One trial; while `final` is false its metrics are the newest of the log and may get worse again."""

    number: int
    job: str | None
    state: str
    final: bool
    params: JsonObject
    """What tells it from the others: a fold, a variant, the values that were drawn."""
    value: float | None
    """The experiment's metric, of the weights that were kept."""
    metrics: dict[str, float]
    stop_reason: str | None
    error: FailureOut | None
    model: str | None
    best_epoch: int | None
    seconds: float | None
    progress: ProgressOut | None
    why: TrialReasonOut | None
    """Autopilot: what the step changed, and why."""


class ResultsOut(ResponseModel):
    """The live table, by number, and what its figures say together."""

    id: str
    state: ExperimentState
    metric: str | None
    direction: Literal["min", "max"] | None
    data: list[TrialOut]
    best: BestOut | None
    summaries: list[VariantSummaryOut]
    comparisons: list[ComparisonOut]
    steps: list[AutopilotStepOut] | None
    """Autopilot: what was seen, done, expected and measured at each step, in fields and as a `text`."""


def experiment_out(row: Experiment) -> ExperimentOut:
    """A row as scripts read it."""
    return ExperimentOut.model_validate(_fields(row))


def detail_out(view: ExperimentView) -> ExperimentDetail:
    """The same, with what its jobs have come to."""
    states = [line.state for line in view.lines]
    counted = {state: states.count(state) for state in dict.fromkeys(states)}
    fields = {**_fields(view.row), "plan_error": view.plan_error, "jobs": counted}
    return ExperimentDetail.model_validate({**fields, **_together(view)})


def results_out(view: ExperimentView) -> ResultsOut:
    """The table."""
    data = [trial_out(line) for line in view.lines]
    fields = {"id": view.row.id, "state": view.row.state, "data": data, "steps": view.steps}
    return ResultsOut.model_validate({**fields, **_together(view)})


def trial_out(line: TrialRow) -> TrialOut:
    """A row of the table."""
    return TrialOut.model_validate({name: getattr(line, name) for name in TrialOut.model_fields})


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
