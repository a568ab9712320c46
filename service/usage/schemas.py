"""Wire format of what a project uses of its limits."""

from __future__ import annotations

from pydantic import BaseModel

from service.timestamps import Timestamp


class LimitUsage(BaseModel):
    """A limit, and what is used of it."""

    limit: int | None
    """null: no limit."""
    used: int
    remaining: int | None
    """null: no limit. 0 as well where a limit has been lowered below what is used."""
    resets_at: Timestamp | None = None
    """When all of it is there again by time alone; null: when something ends or is deleted."""


class HoursUsage(BaseModel):
    """Hours of this calendar month (UTC)."""

    limit: float | None
    used: float
    remaining: float | None
    resets_at: Timestamp
    """The beginning of the next month."""


class StorageByKind(BaseModel):
    """Bytes by what they are; each is counted once."""

    datasets: int
    """Files as they were uploaded; one that two datasets share counts once."""
    prepared_datasets: int
    """The form that jobs read."""
    open_uploads: int
    """What unfinished uploads have declared."""
    checkpoints: int
    artifacts: int
    models: int
    metrics: int
    """Metric logs, compressed as they are stored."""
    logs: int
    """Log lines, compressed."""
    records: int
    """Other documents of jobs: specs, evaluations, decisions, what events hold; and notes of groups."""


class StorageUsage(LimitUsage):
    """Bytes that the project keeps, as they were summed some seconds ago at most."""

    by_kind: StorageByKind


class KeyUsageOut(BaseModel):
    """What the key of this request has used; streams and requests in work are those of the API process that answers."""

    requests_per_minute: LimitUsage
    requests_in_work: LimitUsage
    """At this moment, this request included."""
    streams: LimitUsage
    """Event streams and long polls that are open."""


class UsageOut(BaseModel):
    """What a project uses of its limits. The limits themselves are set by the operator, and lower ones by its admins."""

    project: str
    at: Timestamp
    key: KeyUsageOut
    queued_jobs: LimitUsage
    running_jobs: LimitUsage
    inference_requests: LimitUsage
    """Predictions, evaluations, previews and reports that wait for a worker."""
    open_uploads: LimitUsage
    open_upload_bytes: LimitUsage
    webhooks: LimitUsage
    storage_bytes: StorageUsage
    gpu_hours: HoursUsage
    """From the claim of a job to the end of its attempt, for attempts that train on a GPU; running ones included."""
    cpu_hours: HoursUsage
    """The same of attempts without a GPU, times their threads."""
