"""Wire format of jobs and of what belongs to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Literal

from pydantic import Field, TypeAdapter

from service.datasets.tables import DatasetVersion
from service.jobs.lineage import Relation
from service.jobs.replicates import replicate_key
from service.jobs.spec_references import as_written
from service.jobs.states import State
from service.jobs.tables import Attempt, Checkpoint, Decision, Job, JobEvent
from service.labels import MAX_NOTES, LabelsPatch
from service.request_model import RequestModel
from service.response_model import (
    AttainableOut,
    EvaluationBase,
    FailureOut,
    JsonObject,
    MetricValues,
    ResponseModel,
    RuleDocument,
    SpecDocument,
    StoredDocument,
)
from service.timestamps import Timestamp, rfc3339
from service.workers.names import worker_alias


class DatasetOfJob(ResponseModel):
    """Exactly which bytes the job is about."""

    id: str
    name: str
    version: int
    sha256: str | None


class DatasetName(ResponseModel):
    """The dataset of a job in a list."""

    name: str
    version: int


class ErrorCode(StoredDocument):
    """Why the job failed; the job itself has the whole error."""

    code: str = "internal_error"


class Percent(StoredDocument):
    """How far a job is."""

    percent: float | None = None


class BestMetrics(ResponseModel):
    """The best value of each series of the validation part."""

    best: dict[str, float | None]


class JobRow(ResponseModel):
    """A job in a list: what `fields` does not change. `GET /v1/jobs/{job_id}` has everything."""

    id: str
    name: str
    state: State
    stop_reason: str | None
    error: ErrorCode | None
    progress: Percent | None
    metrics: BestMetrics
    labels: dict[str, str]
    group: str | None
    dataset: DatasetName
    created_at: Timestamp
    finished_at: Timestamp | None


class JobMetrics(ResponseModel):
    """Newest and best value of each series."""

    last: MetricValues
    best: MetricValues


class ProgressOut(StoredDocument):
    """How far training has come; told at most once a second.

    Of an investigation epochs and steps are its runs: those that have ended, and those that the budget allows, as far as it
    names a number.
    """

    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    percent: float = 0.0
    eta_seconds: float | None = None
    """Null until the first step of an attempt."""
    samples_per_second: float = 0.0


class TrainedPhaseOut(StoredDocument):
    """A phase of training, and what is trained in it."""

    first_epoch: int = 0
    last_epoch: int = 0
    trainable: int = 0
    """Parameters that are trained."""
    blocks: list[str] = []


class RuntimeOut(StoredDocument):
    """What `auto` became: chosen once, and the same for every later attempt.

    Of a job of an earlier version, an empty text or 0 stands for what was not recorded then.
    """

    device: str = ""
    threads: int = 0
    precision: str = ""
    compile: bool = False
    channels_last: bool = False
    deterministic: bool = False
    versions: dict[str, str] = {}
    """Of what decides the bits beside spec and seed."""
    batched: bool = False
    """Whether it was trained with other trials as one model."""
    parameters: int = 0
    trainable: int = 0
    phases: list[TrainedPhaseOut] = []
    resume_exact: bool = False
    """Whether a resumed run gives the same bits as an uninterrupted one."""


class ParentOut(StoredDocument):
    """The job that this one comes from."""

    job: str = ""
    relation: Relation = "fork"
    step: int | None = None
    """The step of the checkpoint that it began at; null when it began anew."""


class ResultOut(StoredDocument):
    """What the job came to."""

    model: str | None = None
    """Null for a baseline, which keeps none."""
    best_epoch: int | None = None
    stopped_epoch: int = 0
    test: MetricValues = {}
    """Metrics of the test part; empty without one."""
    verdict: str | None = None
    """Of an investigation: the code of its main verdict. `GET /v1/jobs/{id}/diagnosis` has all that it found."""


class PurgeOut(StoredDocument):
    """When retention took a part of the job, and why."""

    at: Timestamp | None = None
    """Null where an earlier version has not recorded it."""
    reason: str = "retention"


class JobOut(ResponseModel):
    """A job as scripts read it; fields may be added, never renamed."""

    id: str
    name: str
    state: State
    phase: str | None
    stop_reason: str | None
    error: FailureOut | None
    progress: ProgressOut | None
    metrics: JobMetrics
    attempts: int
    """How often a worker has taken it: the length of `/attempts`."""
    failures: int
    """Attempts that failed by the job's own fault, which `resources.max_attempts` bounds."""
    interruptions: int
    labels: dict[str, str]
    group: str | None
    """Jobs of the project with the same group are compared by the peer rules."""
    replicate_key: str
    """The same for jobs that repeat each other: their specs differ in seeds and folds alone."""
    notes: str | None
    spec: SpecDocument
    """As submitted. What a name in it meant then is in `dataset` and `resolved`, and stays."""
    resolved: SpecDocument | None
    """With everything filled in; null until the dataset has been checked."""
    runtime: RuntimeOut | None
    """Null until training has begun."""
    dataset: DatasetOfJob
    parent: ParentOut | None
    investigation_of: str | None
    """Of an investigation: the job that it investigates. Such a job trains variants of that one, and leaves no model."""
    priority: int
    result: ResultOut | None
    """Null until the job has ended well."""
    purged: dict[str, PurgeOut] | None
    """What retention has taken: `checkpoints`, `logs`, `metrics`."""
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None
    updated_at: Timestamp


Render = Callable[[Any, DatasetVersion], Any]


def _column(name: str) -> tuple[tuple[str, ...], Render]:
    return (name,), lambda job, _: getattr(job, name)


JOB_FIELDS: dict[str, tuple[tuple[str, ...], Render]] = {
    "id": _column("id"),
    "name": _column("name"),
    "state": _column("state"),
    "phase": _column("phase"),
    "stop_reason": _column("stop_reason"),
    "error": _column("error"),
    "progress": (("progress", "state", "stop_reason", "result"), lambda job, _: _progress(job)),
    "metrics": (
        ("metrics_last", "metrics_best"),
        lambda job, _: {"last": job.metrics_last, "best": job.metrics_best},
    ),
    # each claim raises the fence and adds an attempt
    "attempts": _column("fence"),
    "failures": _column("attempts"),
    "interruptions": _column("interruptions"),
    "labels": _column("labels"),
    "group": _column("group_name"),
    "replicate_key": (("spec",), lambda job, _: replicate_key(job.spec)),
    "notes": _column("notes"),
    "spec": (("spec", "reference_names"), lambda job, _: as_written(job.spec, job.reference_names)),
    "resolved": _column("resolved"),
    "runtime": _column("runtime"),
    "dataset": (
        ("dataset_id",),
        lambda _, dataset: {
            "id": dataset.id,
            "name": dataset.name,
            "version": dataset.version,
            "sha256": dataset.blob_sha256,
        },
    ),
    "parent": _column("parent"),
    "investigation_of": _column("investigation_of"),
    "priority": _column("priority"),
    "result": _column("result"),
    "purged": _column("purged"),
    "created_at": _column("created_at"),
    "started_at": _column("started_at"),
    "finished_at": _column("finished_at"),
    "updated_at": _column("updated_at"),
}
"""Field of a job -> the columns that it needs, and how it is made of them."""


def job_out(job: Job, dataset: DatasetVersion) -> JobOut:
    """A row as scripts read it."""
    return JobOut.model_validate({name: render(job, dataset) for name, (_, render) in JOB_FIELDS.items()})


TYPED = {
    name: TypeAdapter[Any](JobOut.model_fields[name].annotation or Any)
    for name in ("error", "progress", "runtime", "parent", "result", "purged")
}
"""Fields whose stored form is completed by their type."""


def job_row(job: Any, dataset: DatasetVersion, fields: Iterable[str]) -> dict[str, Any]:
    """Return these fields of a job, of a row with the columns that they need, as JSON has them."""
    return {name: _as_json(name, JOB_FIELDS[name][1](job, dataset)) for name in fields}


def _as_json(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    if value is None or name not in TYPED:
        return value
    return TYPED[name].dump_python(TYPED[name].validate_python(value), mode="json", by_alias=True)


def job_columns(fields: Iterable[str]) -> list[str]:
    """Return the columns that these fields need."""
    return list(dict.fromkeys(column for name in fields for column in (*JOB_FIELDS[name][0], "dataset_id")))


def _progress(job: Any) -> dict[str, Any] | None:
    """The last progress that a worker told; of a job that ended with its result, nothing is left to do.

    The worker tells it at most once a second, so that it may be behind the end.
    """
    progress: dict[str, Any] | None = job.progress
    if progress is None or job.state not in ("succeeded", "stopped"):
        return progress
    ended = {"percent": 100.0, "eta_seconds": 0.0}
    if (epoch := (job.result or {}).get("stopped_epoch")) is not None:
        ended["epoch"] = epoch
    if job.stop_reason == "completed" and "steps" in progress:
        ended["step"] = progress["steps"]
    return {**progress, **ended}


class StopIn(RequestModel):
    """How to stop."""

    keep: Literal["best", "last"] = "best"
    """Which weights the model keeps."""
    if_seq: int | None = None
    """Stop only if no metric row beyond this seq has come; otherwise 409."""


class ResumeIn(RequestModel):
    """How to go on."""

    extra_epochs: int = Field(0, ge=0, le=1_000_000)
    """Epochs to train beyond those of the spec."""


class ForkIn(RequestModel):
    """What the new job does otherwise."""

    patch: JsonObject = Field(default_factory=dict)
    """A JSON merge patch (RFC 7396) of the job's spec."""


class JobPatch(RequestModel):
    """What of a job may change, in any state: what tells people about it. A JSON merge patch (RFC 7396)."""

    name: str | None = Field(None, max_length=200)
    """Its model is called so, if it is still to come; null: no name."""
    labels: LabelsPatch | None = None
    """Labels to set, and null for those to remove; null alone removes all."""
    notes: str | None = Field(None, max_length=MAX_NOTES)
    """Free text; null removes it."""


class EventOut(ResponseModel):
    """One change of the job.

    Kind `state`: of its state. Kind `edited`: of its name, labels or notes, `{before, after}` in `data`. Kind `retention`:
    what was removed of it, how much in `data`. Kind `variant`: a run of an investigation that has begun or ended, `{number,
    name, state, patch, cause, result}` in `data`. Kind `diagnosis`: whether the run was found to need an investigation.
    """

    seq: int
    at: Timestamp
    kind: str
    from_: State | None = Field(serialization_alias="from")
    to: State | None
    reason: str | None
    actor: str
    data: JsonObject | None


class AttemptOut(ResponseModel):
    """One worker's go at the job, numbered by the fence it was claimed with."""

    attempt: int
    worker: str
    started_at: Timestamp
    finished_at: Timestamp | None
    outcome: str | None
    error: FailureOut | None
    resumed_from_step: int | None
    resume_exact: bool | None
    """Whether it went on as if never interrupted, to the last bit; null when it began anew, or has not begun yet."""
    resume_reason: str | None
    """Why not."""


class DecisionOut(ResponseModel):
    """One evaluation of one early-stop rule, with the numbers it saw."""

    seq: int
    at: Timestamp
    attempt: int
    step: int
    epoch: int
    rule: RuleDocument
    inputs: JsonObject
    """What the rule saw: a metric's value, its best so far, thresholds."""
    action: str
    reason: str | None


class CheckpointOut(ResponseModel):
    """One stored checkpoint; `metric_seq` is how far the metric log had come."""

    id: str
    attempt: int
    step: int
    epoch: int
    sha256: str
    bytes: int
    metric_seq: int
    created_at: Timestamp


class EvaluationOut(EvaluationBase, StoredDocument):
    """Metrics of the test part; else of the validation part, else of the training part."""

    samples: int = 0
    metrics: MetricValues = {}
    split: str = "test"
    parts: dict[str, MetricValues] = {}
    """Of each held-out part."""
    attainable: AttainableOut | None = None
    """What reference models reach on the validation part; left out where nothing was measured."""


def event_out(row: JobEvent) -> EventOut:
    """The event as `{seq, at, kind, from, to, reason, actor, data}`."""
    return EventOut(
        seq=row.seq,
        at=row.at,
        kind=row.kind,
        from_=row.from_state,
        to=row.to_state,
        reason=row.reason,
        actor=worker_alias(row.actor),
        data=row.data,
    )


def attempt_out(row: Attempt) -> AttemptOut:
    """A row as scripts read it."""
    return AttemptOut.model_validate(
        {
            "attempt": row.fence,
            "worker": worker_alias(row.worker),
            "started_at": row.started_at,
            "finished_at": row.finished_at,
            "outcome": row.outcome,
            "error": row.error,
            "resumed_from_step": row.resumed_from_step,
            "resume_exact": (row.resume or {}).get("exact"),
            "resume_reason": (row.resume or {}).get("reason"),
        }
    )


def decision_out(row: Decision) -> DecisionOut:
    """A row as scripts read it."""
    return DecisionOut(
        seq=row.seq,
        at=row.at,
        attempt=row.fence,
        step=row.step,
        epoch=row.epoch,
        rule=row.rule,
        inputs=row.inputs,
        action=row.action,
        reason=row.reason,
    )


def checkpoint_out(row: Checkpoint) -> CheckpointOut:
    """A row as scripts read it."""
    return CheckpointOut(
        id=row.id,
        attempt=row.fence,
        step=row.step,
        epoch=row.epoch,
        sha256=row.sha256,
        bytes=row.bytes,
        metric_seq=row.metric_seq,
        created_at=row.created_at,
    )
