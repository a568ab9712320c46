"""Jobs, what happened to them, and what they left behind."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Double, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Audited, Base, Json, Name, UtcDateTime, partial_index
from service.leases import Leased

UNCOMPACTED = "compacted_seq < next_seq - 1"
"""SQL of "the metric log has rows in small chunks", word for word as in the index that serves it."""


class Job(Leased, Base):
    """A training job. The row is the truth: state, wishes, progress, result."""

    __tablename__ = "jobs"
    audited = Audited(
        "job",
        omitted=frozenset(
            {
                *(
                    "resolved",
                    "runtime",
                    "retry_of",
                    "investigation_of",
                    "budget_key_id",
                    "reserved_seconds",
                    "queue",
                    "phase",
                    "progress",
                    "metrics_last",
                    "metrics_best",
                    "result",
                ),
                *("evaluation", "attempts", "interruptions", "max_attempts", "compacted_seq", "peer_decisions"),
                *("metric_bytes", "log_bytes", "record_bytes"),
            }
        ),
    )
    __table_args__ = (
        Index("jobs_by_project", "project_id", "id"),
        Index("jobs_by_dataset", "dataset_id", "id"),
        Index("jobs_by_project_state", "project_id", "state", "id"),
        Index("jobs_by_update", "project_id", "updated_at", "id"),
        Index("jobs_by_name", "project_id", "name", "id"),
        partial_index("jobs_by_start", "project_id", "started_at", "id", where="started_at IS NOT NULL"),
        # of jobs that have ended the last four seldom change: rows and bytes of a project are summed without the jobs
        partial_index(
            "jobs_by_end",
            *("project_id", "finished_at", "id", "next_seq", "metric_bytes", "log_bytes", "record_bytes"),
            where="finished_at IS NOT NULL",
        ),
        partial_index("jobs_by_group", "project_id", "group_name", "id", where="group_name IS NOT NULL"),
        partial_index("jobs_by_retry_of", "retry_of", "state", where="retry_of IS NOT NULL"),
        partial_index(
            "jobs_by_investigation_of",
            "project_id",
            "investigation_of",
            "id",
            where="investigation_of IS NOT NULL",
        ),
        partial_index("jobs_by_lease", "lease_expires_at", where="lease_expires_at IS NOT NULL"),
        partial_index("jobs_by_pause", "not_before", where="not_before IS NOT NULL"),
        partial_index("jobs_to_compact", "id", where=UNCOMPACTED),
    )
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(Name)
    labels: Mapped[dict[str, Any]] = mapped_column(Json)
    group_name: Mapped[str | None] = mapped_column(String(200))
    """The spec's `group`: jobs of the project with the same one are compared. `group` is a reserved word of SQL."""
    notes: Mapped[str | None] = mapped_column(Text)
    spec: Mapped[dict[str, Any]] = mapped_column(Json)
    """As submitted, short forms written out, with an id in place of each reference by name."""
    reference_names: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """JSON pointer into `spec` -> the reference by name that the client wrote there."""
    resolved: Mapped[dict[str, Any] | None] = mapped_column(Json)
    runtime: Mapped[dict[str, Any] | None] = mapped_column(Json)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    parent: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """`{job, relation, step}` of the job that this one was made from."""
    retry_of: Mapped[str | None] = mapped_column(String(40))
    """That job's id when the relation is `retry`, where an index finds it."""
    investigation_of: Mapped[str | None] = mapped_column(String(40))
    """The job that this one investigates: `investigation.job` of its spec, where an index finds it."""
    budget_key_id: Mapped[str | None] = mapped_column(String(16))
    """The key whose budget pays for it; None where the key that created it has none."""
    reserved_seconds: Mapped[float | None] = mapped_column(Double)
    """What it may still take from that budget; None where seconds are not bounded, and once it has ended."""
    queue: Mapped[str] = mapped_column(String(40), default="train")
    priority: Mapped[int] = mapped_column(default=0)
    state: Mapped[str] = mapped_column(String(20))
    phase: Mapped[str | None] = mapped_column(String(200))
    stop_reason: Mapped[str | None] = mapped_column(String(40))
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    progress: Mapped[dict[str, Any] | None] = mapped_column(Json)
    metrics_last: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    metrics_best: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    result: Mapped[dict[str, Any] | None] = mapped_column(Json)
    evaluation: Mapped[dict[str, Any] | None] = mapped_column(Json)
    requested_action: Mapped[dict[str, Any] | None] = mapped_column(Json)
    purged: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """What retention has taken: `{"logs": {at, reason}}`, `checkpoints`, `metrics`."""
    attempts: Mapped[int] = mapped_column(default=0)
    interruptions: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int] = mapped_column(default=3)
    next_seq: Mapped[int] = mapped_column(BigInteger, default=1)
    compacted_seq: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Up to this row the metric log lies in large chunks."""
    next_event_seq: Mapped[int] = mapped_column(default=1)
    next_decision_seq: Mapped[int] = mapped_column(default=1)
    peer_decisions: Mapped[int] = mapped_column(default=0, server_default="0")
    """How many of them are of peer rules, which the training process does not evaluate."""
    next_log_seq: Mapped[int] = mapped_column(BigInteger, default=1, server_default="1")
    metric_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Of the bodies of its metric log's chunks, as they are stored now."""
    log_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Of the bodies of its log's chunks."""
    record_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Of the documents kept of it, as JSON: spec, evaluation, decisions, and what its events hold (`json_bytes`)."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


# below the class, because a descending column is named by the class
Index("jobs_by_queue", Job.state, Job.queue, Job.project_id, Job.priority.desc(), Job.created_at, Job.id)


class JobLabel(Base):
    """One label of a job, by which lists find it. The label itself is in the job's row: it may be of any length."""

    __tablename__ = "job_labels"
    __table_args__ = (Index("job_labels_by_job", "job_id"),)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    digest: Mapped[str] = mapped_column(String(32), primary_key=True)
    """The first half of SHA-256 over key and value (`label_digest`)."""
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)


def label_digest(key: str, value: str) -> str:
    """Return the digest of a label; keys have no NUL."""
    return hashlib.sha256(f"{key}\0{value}".encode(errors="surrogatepass")).hexdigest()[:32]


class JobBestMetric(Base):
    """One of a job's `metrics_best`, by which lists are sorted and filtered."""

    __tablename__ = "job_best_metrics"
    __table_args__ = (Index("job_best_metrics_by_value", "project_id", "name", "value", "job_id"),)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    value: Mapped[float] = mapped_column(Double)


class JobEvent(Base):
    """One change of a job: of its state (kind `state`), of what clients may edit (`edited`), what was removed of it
    (`retention`), a run of an investigation (`variant`), or whether its diagnosis began one (`diagnosis`); `seq` is gap-free.
    """

    __tablename__ = "job_events"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    kind: Mapped[str] = mapped_column(String(10), default="state")
    from_state: Mapped[str | None] = mapped_column(String(20))
    to_state: Mapped[str | None] = mapped_column(String(20))
    reason: Mapped[str | None] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(String(200))
    data: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """Of kind `retention`: how much of each part was removed. Of kind `edited`: `{before, after}` of each field. Of kind
    `variant`: `{attempt, number, name, state, patch, cause, result}`. Of kind `diagnosis`: `{investigation}`."""


class Attempt(Base):
    """One worker's go at a job, numbered by the fence it was claimed with."""

    __tablename__ = "attempts"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    fence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    worker: Mapped[str] = mapped_column(String(200))
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    outcome: Mapped[str | None] = mapped_column(String(40))
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    resumed_from_step: Mapped[int | None]
    resume: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """`{exact, reason}`: whether it goes on as if never interrupted, bit for bit, or why not."""


class ComputeUsage(Base):
    """Seconds of a project's attempts that have ended, in the part of them that lies in the month (UTC).

    It outlives the jobs: deleting one gives nothing back.
    """

    __tablename__ = "compute_usage"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    month: Mapped[str] = mapped_column(String(7), primary_key=True)
    """`2026-01`."""
    gpu_seconds: Mapped[float] = mapped_column(Double, default=0.0)
    cpu_seconds: Mapped[float] = mapped_column(Double, default=0.0)
    """Of the attempts that trained without a GPU, each second times the threads it had."""


class Decision(Base):
    """One evaluation of one early-stop rule, with its inputs."""

    __tablename__ = "decisions"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    fence: Mapped[int]
    step: Mapped[int]
    epoch: Mapped[int]
    rule: Mapped[dict[str, Any]] = mapped_column(Json)
    inputs: Mapped[dict[str, Any]] = mapped_column(Json)
    action: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str | None] = mapped_column(Text)


class Checkpoint(Base):
    """A checkpoint in storage, and how far the metric log had come when it was taken."""

    __tablename__ = "checkpoints"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    fence: Mapped[int]
    step: Mapped[int]
    epoch: Mapped[int]
    storage_key: Mapped[str] = mapped_column(String(300))
    sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[int] = mapped_column(BigInteger)
    metric_seq: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Artifact(Base):
    """A file that a job left: plots, logs."""

    __tablename__ = "artifacts"
    __table_args__ = (partial_index("artifacts_without_hash", "job_id", "name", where="sha256 IS NULL"),)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    storage_key: Mapped[str] = mapped_column(String(300))
    media_type: Mapped[str] = mapped_column(String(100))
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str | None] = mapped_column(String(64))
    """None of a file from before hashes were kept, until housekeeping has read it."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class IdempotencyKey(Base):
    """What a client's `Idempotency-Key` made, so that a repeated request makes nothing new."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        Index("idempotency_keys_by_age", "created_at"),
        Index("idempotency_keys_by_resource", "resource_id"),
    )
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    resource_id: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
