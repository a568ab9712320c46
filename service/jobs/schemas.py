"""Wire format of jobs and of what belongs to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from service.datasets.tables import DatasetVersion
from service.jobs.lineage import Relation
from service.jobs.spec_references import as_written
from service.jobs.states import State
from service.jobs.tables import Artifact, Attempt, Checkpoint, Decision, Job, JobEvent
from service.request_model import RequestModel
from service.response_model import (
    EvaluationBase,
    FailureOut,
    JsonObject,
    MetricValues,
    ResponseModel,
    RuleDocument,
    SpecDocument,
)
from service.workers.names import worker_alias


class DatasetOfJob(ResponseModel):
    """Exactly which bytes the job is about."""

    id: str
    name: str
    version: int
    sha256: str | None


class JobMetrics(ResponseModel):
    """Newest and best value of each series."""

    last: MetricValues
    best: MetricValues


class ProgressOut(ResponseModel):
    """How far training has come; told at most once a second."""

    epoch: int
    epochs: int
    step: int
    steps: int
    percent: float
    eta_seconds: float | None
    """Null until the first step of an attempt."""
    samples_per_second: float


class TrainedPhaseOut(ResponseModel):
    """A phase of training, and what is trained in it."""

    first_epoch: int
    last_epoch: int
    trainable: int
    """Parameters that are trained."""
    blocks: list[str]


class RuntimeOut(ResponseModel):
    """What `auto` became: chosen once, and the same for every later attempt."""

    device: str
    threads: int
    precision: str
    compile: bool
    channels_last: bool
    deterministic: bool
    versions: dict[str, str]
    """Of what decides the bits beside spec and seed."""
    batched: bool
    """Whether it was trained with other trials as one model."""
    parameters: int
    trainable: int
    phases: list[TrainedPhaseOut]
    resume_exact: bool
    """Whether a resumed run gives the same bits as an uninterrupted one."""


class ParentOut(ResponseModel):
    """The job that this one comes from."""

    job: str
    relation: Relation
    step: int | None
    """The step of the checkpoint that it began at; null when it began anew."""


class ResultOut(ResponseModel):
    """What the job came to."""

    model: str | None
    """Null for a baseline, which keeps none."""
    best_epoch: int | None
    stopped_epoch: int
    test: MetricValues
    """Metrics of the test part; empty without one."""


class PurgeOut(ResponseModel):
    """When retention took a part of the job, and why."""

    at: datetime
    reason: str


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
    notes: str | None
    spec: SpecDocument
    """As submitted. What a name in it meant then is in `dataset` and `resolved`, and stays."""
    resolved: SpecDocument | None
    """With everything filled in; null until the dataset has been checked."""
    runtime: RuntimeOut | None
    """Null until training has begun."""
    dataset: DatasetOfJob
    parent: ParentOut | None
    priority: int
    result: ResultOut | None
    """Null until the job has ended well."""
    purged: dict[str, PurgeOut] | None
    """What retention has taken: `checkpoints`, `logs`, `metrics`."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime


def job_out(job: Job, dataset: DatasetVersion) -> JobOut:
    """A row as scripts read it."""
    return JobOut.model_validate(
        {
            "id": job.id,
            "name": job.name,
            "state": job.state,
            "phase": job.phase,
            "stop_reason": job.stop_reason,
            "error": job.error,
            "progress": _progress(job),
            "metrics": JobMetrics(last=job.metrics_last, best=job.metrics_best),
            "attempts": job.fence,  # each claim raises the fence and adds an attempt
            "failures": job.attempts,
            "interruptions": job.interruptions,
            "labels": job.labels,
            "group": job.group_name,
            "notes": job.notes,
            "spec": as_written(job.spec, job.reference_names),
            "resolved": job.resolved,
            "runtime": job.runtime,
            "dataset": DatasetOfJob(
                id=dataset.id, name=dataset.name, version=dataset.version, sha256=dataset.blob_sha256
            ),
            "parent": job.parent,
            "priority": job.priority,
            "result": job.result,
            "purged": job.purged,
            "created_at": job.created_at,
            "started_at": job.started_at,
            "finished_at": job.finished_at,
            "updated_at": job.updated_at,
        }
    )


def _progress(job: Job) -> dict[str, Any] | None:
    """The last progress that a worker told; of a job that ended with its result, nothing is left to do.

    The worker tells it at most once a second, so that it may be behind the end.
    """
    if job.progress is None or job.state not in ("succeeded", "stopped"):
        return job.progress
    ended = {"percent": 100.0, "eta_seconds": 0.0}
    if (epoch := (job.result or {}).get("stopped_epoch")) is not None:
        ended["epoch"] = epoch
    if job.stop_reason == "completed" and "steps" in job.progress:
        ended["step"] = job.progress["steps"]
    return {**job.progress, **ended}


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


class EventOut(ResponseModel):
    """One change of the job (kind `state`), or what was removed of it (kind `retention`, how much in `data`)."""

    seq: int
    at: datetime
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
    started_at: datetime
    finished_at: datetime | None
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
    at: datetime
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
    created_at: datetime


class ArtifactOut(ResponseModel):
    """One file that the job left."""

    name: str
    media_type: str
    bytes: int
    created_at: datetime


class EvaluationOut(EvaluationBase):
    """Metrics of the test part; else of the validation part, else of the training part."""

    split: str
    parts: dict[str, MetricValues] = {}
    """Of each held-out part."""


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


def artifact_out(row: Artifact) -> ArtifactOut:
    """A row as scripts read it."""
    return ArtifactOut(name=row.name, media_type=row.media_type, bytes=row.bytes, created_at=row.created_at)
