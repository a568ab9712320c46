"""Responses as typed objects. Fields and values that a newer service adds are accepted and kept.

Words such as states and codes are plain text here: a service may know more of them than this version. Fields that this
version does not know are attributes as well (`job.new_field`), and `to_dict()` has them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

ENDED_JOB = frozenset({"succeeded", "stopped", "cancelled", "failed"})
ENDED_EXPERIMENT = frozenset({"succeeded", "stopped", "failed"})
CHECKED_DATASET = frozenset({"ready", "invalid"})
MetricValues = dict[str, float | None]
"""Name of a metric to its value; None where it is not finite."""


class Response(BaseModel):
    """Base of responses: unknown fields are kept."""

    model_config = ConfigDict(extra="allow", protected_namespaces=(), populate_by_name=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of the service, with the service's names."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Failure(Response):
    """Why something failed: where the cause lies, and what to do."""

    code: str = ""
    layer: str = ""
    message: str = ""
    hint: str = ""
    retryable: bool = False
    evidence: dict[str, Any] = {}


class ApiWarning(Response):
    """What to know about a spec, a prediction or an evaluation."""

    code: str = ""
    message: str = ""
    pointer: str = ""
    hint: str = ""
    column: str | None = None


# --- jobs -----------------------------------------------------------------------------------------------------------


class JobProgress(Response):
    """How far training has come."""

    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    percent: float | None = None
    eta_seconds: float | None = None
    samples_per_second: float = 0.0


class MetricSummary(Response):
    """The newest and the best value of each series."""

    last: MetricValues = {}
    best: MetricValues = {}


class DatasetOfJob(Response):
    """Exactly which bytes a job is about."""

    id: str = ""
    name: str = ""
    version: int = 0
    sha256: str | None = None


class ParentJob(Response):
    """The job that another one comes from."""

    job: str = ""
    relation: str = ""
    step: int | None = None


class JobResult(Response):
    """What a job came to."""

    model: str | None = None
    best_epoch: int | None = None
    stopped_epoch: int = 0
    test: MetricValues = {}
    verdict: str | None = None


class JobRuntime(Response):
    """What `auto` became."""

    device: str = ""
    threads: int = 0
    precision: str = ""
    compile: bool = False
    channels_last: bool = False
    deterministic: bool = False
    versions: dict[str, str] = {}
    batched: bool = False
    parameters: int = 0
    trainable: int = 0
    phases: list[dict[str, Any]] = []
    resume_exact: bool = False


class JobRowFields(Response):
    """What a list shows of a job."""

    id: str
    name: str = ""
    state: str
    stop_reason: str | None = None
    error: Failure | None = None
    progress: JobProgress | None = None
    metric_values: MetricSummary = Field(default=MetricSummary(), alias="metrics")
    """`metrics` of the service: its newest and best values. `job.metrics()` reads the log of all."""
    labels: dict[str, str] = {}
    group: str | None = None
    dataset: DatasetOfJob = DatasetOfJob()
    created_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the job will change no more."""
        return self.state in ENDED_JOB


class JobFields(JobRowFields):
    """A job."""

    phase: str | None = None
    attempts: int = 0
    failures: int = 0
    interruptions: int = 0
    notes: str | None = None
    spec: dict[str, Any] = {}
    resolved: dict[str, Any] | None = None
    runtime: JobRuntime | None = None
    parent: ParentJob | None = None
    investigation_of: str | None = None
    priority: int = 0
    result: JobResult | None = None
    purged: dict[str, Any] | None = None
    replicate_key: str = ""
    started_at: datetime | None = None
    updated_at: datetime | None = None


class MetricRow(Response):
    """One point of the metric log. A value that is not finite is None, and `nonfinite` says which it was."""

    seq: int
    attempt: int = 0
    split: str = ""
    name: str = ""
    step: int = 0
    epoch: int = 0
    value: float | None = None
    at: datetime | None = None
    superseded: bool = False
    nonfinite: str | None = None


class JobEvent(Response):
    """A change of a job: of its state, or what the kind says."""

    seq: int
    at: datetime | None = None
    kind: str = "state"
    from_state: str | None = Field(default=None, alias="from")
    to_state: str | None = Field(default=None, alias="to")
    reason: str | None = None
    actor: str = ""
    data: dict[str, Any] | None = None


class LogLine(Response):
    """One line of an attempt."""

    seq: int
    at: datetime | None = None
    attempt: int = 0
    level: str = ""
    source: str = ""
    text: str = ""


class Decision(Response):
    """One evaluation of one early-stop rule, with the numbers that it saw."""

    seq: int
    at: datetime | None = None
    attempt: int = 0
    step: int = 0
    epoch: int = 0
    rule: dict[str, Any] = {}
    inputs: dict[str, Any] = {}
    action: str = ""
    reason: str | None = None


class Attempt(Response):
    """One worker's go at a job."""

    attempt: int
    worker: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    outcome: str | None = None
    error: Failure | None = None
    resumed_from_step: int | None = None
    resume_exact: bool | None = None
    resume_reason: str | None = None


class Checkpoint(Response):
    """A stored checkpoint."""

    id: str
    attempt: int = 0
    step: int = 0
    epoch: int = 0
    sha256: str = ""
    bytes: int = 0
    metric_seq: int = 0
    created_at: datetime | None = None


class Artifact(Response):
    """A file that a job has left."""

    name: str
    media_type: str = ""
    bytes: int | None = None
    sha256: str | None = None
    created_at: datetime | None = None


class Estimate(Response):
    """What a job of a spec will cost."""

    parameters: int = 0
    trainable: int | None = None
    memory_bytes: int = 0
    activations: int = 0
    multiply_adds: int = 0
    steps_per_epoch: int = 0
    seconds: float | None = None


class ValidatedSpec(Response):
    """A valid spec, with everything filled in."""

    valid: bool = True
    spec: dict[str, Any] = {}
    warnings: list[ApiWarning] = []
    estimate: Estimate | None = None


class Evaluation(Response):
    """Metrics of a model on labelled samples."""

    split: str = ""
    samples: int = 0
    metrics: MetricValues = {}
    per_class: list[dict[str, Any]] = []
    confusion_matrix: list[list[int]] = []
    classes: list[str] = []
    ablation: dict[str, Any] | None = None
    attainable: dict[str, Any] | None = None
    parts: dict[str, Any] = {}
    warnings: list[ApiWarning] = []


# --- diagnosis ------------------------------------------------------------------------------------------------------


class Verdict(Response):
    """What is wrong with a run, or that nothing is."""

    code: str
    confidence: float = 0.0
    since_epoch: int | None = None
    message: str = ""
    evidence: dict[str, Any] = {}
    source: str = ""
    plot: str = ""


class Suspect(Response):
    """A cause that is possible and that the record does not show."""

    code: str
    suspicion: float = 0.0
    why: str = ""
    settled_by: list[str] = []


class ExpectedEffect(Response):
    """What should come of a change."""

    metric: str = ""
    direction: str = ""
    size: str = ""
    source: str = ""


class RecommendedSpec(Response):
    """A spec to try next: a JSON merge patch, and the whole spec with it."""

    patch: dict[str, Any] = {}
    spec: dict[str, Any] = {}
    why: str = ""
    expected: ExpectedEffect = ExpectedEffect()
    code: str = ""
    measured: dict[str, Any] | None = None


class Diagnosis(Response):
    """Verdicts, the main one first, and what to try next."""

    final: bool = False
    verdicts: list[Verdict] = []
    suspects: list[Suspect] = []
    recommendations: list[RecommendedSpec] = []
    harmful: list[dict[str, Any]] = []
    investigation: dict[str, Any] | None = None
    active_investigation: str | None = None

    @property
    def main(self) -> Verdict | None:
        """The first verdict."""
        return self.verdicts[0] if self.verdicts else None


class MeasuredEffect(Response):
    """What a recommended change did: `gain` is above 0 where the metric got better."""

    outcome: str = ""
    improved: bool | None = None
    reason: str | None = None
    after: dict[str, Any] | None = None
    gain: float | None = None
    noise: float | None = None
    expected_after: float | None = None


class Recommendation(Response):
    """The recommendation that a job was made from, and its measured effect."""

    job: str = ""
    source: str = ""
    code: str = ""
    ruleset_version: int = 0
    patch: dict[str, Any] = {}
    expected: ExpectedEffect = ExpectedEffect()
    compared: dict[str, Any] = {}
    measured: MeasuredEffect | None = None


# --- datasets and models --------------------------------------------------------------------------------------------


class DatasetFields(Response):
    """A dataset: one immutable version of a name."""

    id: str
    name: str = ""
    version: int = 0
    kind: str | None = None
    target: str | None = None
    read_options: dict[str, Any] | None = None
    state: str
    phase: str | None = None
    progress: dict[str, Any] | None = None
    sha256: str | None = None
    bytes: int = 0
    samples: int | None = None
    classes: list[str] | None = None
    error: Failure | None = None
    aliases: list[str] = []
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def is_checked(self) -> bool:
        """Whether the check of the data has ended."""
        return self.state in CHECKED_DATASET


class Finding(Response):
    """Something about the data that is worth knowing before training."""

    severity: str = "info"
    code: str = ""
    message: str = ""
    where: str = ""


class DatasetReport(Response):
    """What the check of a dataset found. Which fields there are depends on its kind."""

    facts: dict[str, Any] | None = None
    error: Failure | None = None
    errors: list[dict[str, Any]] = []
    kind: str | None = None
    detected_because: str | None = None
    samples: int | None = None
    classes: dict[str, int] | None = None
    splits: dict[str, int] | None = None
    classes_by_split: dict[str, dict[str, int]] = {}
    findings: list[Finding] = []
    unreadable: list[dict[str, Any]] = []
    columns: list[dict[str, Any]] = []
    column_statistics: dict[str, dict[str, float]] = {}
    channel_means: list[float] = []
    channel_stds: list[float] = []
    attainable: list[dict[str, Any]] = []


class Alias(Response):
    """What an alias means, or has meant from one time to another."""

    alias: str
    name: str = ""
    version: int = 0
    target: str = ""
    created_at: datetime | None = None
    created_by: str = ""
    ended_at: datetime | None = None
    ended_by: str | None = None


class ModelRowFields(Response):
    """What a list shows of a model."""

    id: str
    job: str | None = None
    name: str | None = None
    version: int | None = None
    aliases: list[str] = []
    kind: str = ""
    labels: dict[str, str] = {}
    notes: str | None = None
    metrics: MetricValues = {}
    bytes: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None


class ModelFields(ModelRowFields):
    """A trained model."""

    lineage: dict[str, Any] = {}
    manifest: dict[str, Any] = {}

    @property
    def classes(self) -> list[str] | None:
        """The classes in the order of the outputs; None of a model of numbers."""
        return self.manifest.get("classes")


class Prediction(Response):
    """The prediction of one sample: label and probabilities of a classifier, or the value of a regression."""

    label: str | None = None
    probabilities: dict[str, float | None] | None = None
    value: float | list[float | None] | None = None
    warnings: list[ApiWarning] | None = None


# --- experiments ----------------------------------------------------------------------------------------------------


class BestTrial(Response):
    """The best trial by the validation part."""

    number: int = 0
    job: str | None = None
    model: str | None = None
    chosen_by: str = ""
    chosen_value: float | None = None
    value: float | None = None


class ExperimentRowFields(Response):
    """What a list shows of an experiment."""

    id: str
    name: str = ""
    kind: str = ""
    state: str
    reason: str | None = None
    error: Failure | None = None
    labels: dict[str, str] = {}
    dataset: str = ""
    created_at: datetime | None = None
    finished_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the experiment will change no more."""
        return self.state in ENDED_EXPERIMENT


class ExperimentFields(ExperimentRowFields):
    """An experiment, with what its jobs have come to so far."""

    plan: dict[str, Any] = {}
    plan_error: str | None = None
    metric: str | None = None
    direction: str | None = None
    jobs: dict[str, int] = {}
    best: BestTrial | None = None
    summaries: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []


class Trial(Response):
    """One trial of an experiment."""

    number: int
    job: str | None = None
    state: str = ""
    final: bool = False
    params: dict[str, Any] = {}
    value: float | None = None
    metrics: MetricValues = {}
    stop_reason: str | None = None
    error: Failure | None = None
    model: str | None = None
    best_epoch: int | None = None
    seconds: float | None = None
    progress: JobProgress | None = None
    why: dict[str, Any] | None = None


class ExperimentResults(Response):
    """The table of an experiment, and what its figures say together."""

    id: str
    state: str = ""
    metric: str | None = None
    direction: str | None = None
    data: list[Trial] = []
    best: BestTrial | None = None
    summaries: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] | None = None


class ExperimentComparison(Response):
    """Whether B is better than A, of figures on the same cuts of the same data."""

    a: str = ""
    b: str = ""
    verdict: str = ""
    summary: str = ""
    metric: str = ""
    better: str = ""
    n: int = 0
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    paired_t_p: float | None = None
    test_share: float | None = None
    wilcoxon: dict[str, Any] | None = None
    wins: int = 0
    ties: int = 0
    losses: int = 0
    not_finite: list[int] = []


# --- the installation -----------------------------------------------------------------------------------------------


class Worker(Response):
    """A worker that was seen lately."""

    id: str
    host: str | None = None
    pid: int | None = None
    device: str = ""
    queues: list[str] = []
    slots: int = 0
    versions: dict[str, str] = {}
    started_at: datetime | None = None
    seen_at: datetime | None = None


class Key(Response):
    """An API key; its secret is shown once, by `keys.create`."""

    id: str
    name: str = ""
    description: str = ""
    role: str | None = None
    operator: bool = False
    user: str | None = None
    budget: dict[str, Any] | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    last_used_from: str | None = None
    revoked_at: datetime | None = None


class CreatedKey(Key):
    """A new key with its secret, which no later response shows."""

    key: str = Field(repr=False)


class Project(Response):
    """A project."""

    id: str
    name: str = ""
    created_at: datetime | None = None
    archived_at: datetime | None = None
    settings: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    overrides: list[str] = []


class Me(Response):
    """Who the caller is."""

    user: dict[str, Any] | None = None
    key: dict[str, Any] | None = None
    project: dict[str, Any] | None = None
    role: str | None = None
    operator: bool = False
    projects: list[dict[str, Any]] = []


class Info(Response):
    """What an installation is, and can do now."""

    version: str = ""
    api_version: str = ""
    database: str = ""
    broker: str = ""
    devices: list[dict[str, Any]] = []
    features: dict[str, Any] = {}
    limits: dict[str, Any] = {}
