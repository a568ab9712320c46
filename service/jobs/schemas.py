"""Wire format of jobs and of what belongs to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from service.datasets.tables import Dataset
from service.jobs.states import State
from service.jobs.tables import Attempt, Checkpoint, Decision, Job, JobEvent


class DatasetOfJob(BaseModel):
    """Exactly which bytes the job is about."""

    id: str
    name: str
    version: int
    sha256: str


class JobMetrics(BaseModel):
    """Newest and best value of each series."""

    last: dict[str, float | None]
    best: dict[str, float | None]


class JobOut(BaseModel):
    """A job as scripts read it; fields may be added, never renamed."""

    id: str
    name: str
    state: State
    phase: str | None
    stop_reason: str | None
    error: dict[str, Any] | None
    progress: dict[str, Any] | None
    metrics: JobMetrics
    attempts: int
    interruptions: int
    labels: dict[str, str]
    spec: dict[str, Any]
    resolved: dict[str, Any] | None
    decided: dict[str, Any] | None
    dataset: DatasetOfJob
    result: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime


def job_out(job: Job, dataset: Dataset) -> JobOut:
    """A row as scripts read it."""
    return JobOut(
        id=job.id,
        name=job.name,
        state=job.state,
        phase=job.phase,
        stop_reason=job.stop_reason,
        error=job.error,
        progress=job.progress,
        metrics=JobMetrics(last=job.metrics_last, best=job.metrics_best),
        attempts=job.attempts,
        interruptions=job.interruptions,
        labels=job.labels,
        spec=job.spec,
        resolved=job.resolved,
        decided=job.decided,
        dataset=DatasetOfJob(id=dataset.id, name=dataset.name, version=dataset.version, sha256=dataset.blob_sha256),
        result=job.result,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        updated_at=job.updated_at,
    )


class StopIn(BaseModel):
    """How to stop."""

    model_config = ConfigDict(extra="forbid")
    keep: Literal["best", "last"] = "best"
    """Which weights the model keeps."""
    if_seq: int | None = None
    """Stop only if no metric row beyond this seq has come; otherwise 409."""


def event_wire(row: JobEvent) -> dict[str, Any]:
    """The event as `{seq, at, from, to, reason, actor}`."""
    return {
        "seq": row.seq,
        "at": row.at.isoformat(timespec="milliseconds"),
        "from": row.from_state,
        "to": row.to_state,
        "reason": row.reason,
        "actor": row.actor,
    }


def attempt_wire(row: Attempt) -> dict[str, Any]:
    """One worker's go at the job."""
    return {
        "attempt": row.fence,
        "worker": row.worker,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "outcome": row.outcome,
        "error": row.error,
        "resumed_from_step": row.resumed_from_step,
    }


def decision_wire(row: Decision) -> dict[str, Any]:
    """One evaluation of one early-stop rule."""
    return {
        "seq": row.seq,
        "at": row.at,
        "attempt": row.fence,
        "step": row.step,
        "epoch": row.epoch,
        "rule": row.rule,
        "inputs": row.inputs,
        "action": row.action,
        "reason": row.reason,
    }


def checkpoint_wire(row: Checkpoint) -> dict[str, Any]:
    """One stored checkpoint."""
    return {
        "id": row.id,
        "attempt": row.fence,
        "step": row.step,
        "epoch": row.epoch,
        "sha256": row.sha256,
        "bytes": row.bytes,
        "metric_seq": row.metric_seq,
        "created_at": row.created_at,
    }
