"""How much a project may store: all that it keeps, each byte counted once, and what its open uploads will take."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields

from sqlalchemy.orm import Session

from service.datasets import repository as datasets
from service.errors import HttpProblem, Quota
from service.jobs import repository as jobs
from service.models import repository as models
from service.notes import repository as notes
from service.projects import repository as projects
from service.projects.service import rules
from service.settings import Settings
from service.uploads import repository as uploads

COUNTED_SECONDS = 10.0
KEPT_PROJECTS = 10_000
_counted: dict[tuple[str, str], tuple[float, Usage]] = {}
"""(database, project) -> (when its bytes were summed, how many)."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes that count against a project's quota, by what they are."""

    datasets: int
    prepared_datasets: int
    open_uploads: int
    checkpoints: int
    artifacts: int
    models: int
    metrics: int
    logs: int
    records: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(getattr(self, field.name) for field in fields(self))

    def __str__(self) -> str:
        """What takes bytes: `600 by datasets, 20 by models`."""
        parts = ((field.name.replace("_", " "), getattr(self, field.name)) for field in fields(self))
        return ", ".join(f"{size} by {name}" for name, size in parts if size)


def limit(session: Session, settings: Settings, project_id: str) -> int | None:
    """The project's quota in bytes; None: no limit."""
    return rules(session, settings, project_id).max_storage_bytes


def used(session: Session, project_id: str, *, without_upload: str | None = None) -> Usage:
    """Return the bytes that count against the project's quota."""
    metrics, logs, records = jobs.row_bytes(session, project_id)
    records += notes.stored_bytes(session, project_id)
    return Usage(
        datasets=datasets.stored_bytes(session, project_id),
        prepared_datasets=datasets.prepared_bytes(session, project_id),
        open_uploads=uploads.open_bytes(session, project_id, without=without_upload),
        checkpoints=jobs.checkpoint_bytes(session, project_id),
        artifacts=jobs.artifact_bytes(session, project_id),
        models=models.stored_bytes(session, project_id),
        metrics=metrics,
        logs=logs,
        records=records,
    )


def room(session: Session, settings: Settings, project_id: str, *, without_upload: str | None = None) -> int:
    """Bytes that one more upload may have: what quota and open uploads leave, and no more than the largest upload."""
    left, quota = settings.max_upload_bytes, limit(session, settings, project_id)
    if quota is not None:
        left = min(left, quota - used(session, project_id, without_upload=without_upload).total)
    if settings.max_open_upload_bytes:
        opened = uploads.open_bytes(session, project_id, without=without_upload)
        left = min(left, settings.max_open_upload_bytes - opened)
    return max(0, left)


def check(session: Session, settings: Settings, project_id: str, more: int, *, sha256: str | None = None) -> None:
    """Raise a 413 problem when `more` bytes do not fit any more; bytes that the project has already cost nothing.

    The project's row is locked until the transaction ends: two that fit one by one must not both pass.
    """
    quota = limit(session, settings, project_id)
    if quota is None:
        return
    projects.locked(session, project_id)
    if sha256 is not None and datasets.has_blob(session, project_id, sha256):
        return
    before = used(session, project_id)
    if before.total + more > quota:
        raise exceeded(quota, before, more)


def check_open_uploads(session: Session, settings: Settings, project_id: str, length: int, *, more: int = 1) -> None:
    """Raise a problem when the project has too many unfinished uploads (429), or they declare too many bytes (413).

    The project's row is locked until the transaction ends. `more` is the number of uploads that are to begin.
    """
    most, most_bytes = settings.max_open_uploads, settings.max_open_upload_bytes
    if not (most or most_bytes):
        return
    projects.locked(session, project_id)
    hint = "Finish some, or delete them (DELETE /v1/uploads/{id}); those that get no bytes expire."
    if most and more and uploads.count_open(session, project_id) + more > most:
        detail = f"{most} uploads of this project are unfinished, which is the limit. {hint}"
        opened = Quota("open_uploads", limit=most, used=uploads.count_open(session, project_id))
        raise HttpProblem(429, "too_many_uploads", detail, headers={"Retry-After": "30"}, quota=opened)
    before = uploads.open_bytes(session, project_id)
    if most_bytes and before + length > most_bytes:
        detail = (
            f"Unfinished uploads of the project may have {most_bytes} bytes together; they have {before}, and this needs "
            f"{length} more. {hint}"
        )
        declared = Quota("open_upload_bytes", limit=most_bytes, used=before)
        raise HttpProblem(413, "too_many_open_bytes", detail, limit_bytes=most_bytes, quota=declared)


def check_before_job(session: Session, quota: int | None, project_id: str) -> None:
    """Raise a 413 problem when the quota (None: no limit) is taken: a job's checkpoints and model would go beyond it.

    The sum is up to ten seconds old: it is a bound of what a project keeps, and jobs are submitted often.
    """
    if quota is None:
        return
    if recently_used(session, project_id).total < quota:
        return
    before = recently_used(session, project_id, seconds=0.0)
    if before.total >= quota:
        raise exceeded(quota, before, None)


def recently_used(session: Session, project_id: str, seconds: float = COUNTED_SECONDS) -> Usage:
    """Return what counts against the quota, as it was summed so many seconds ago at most."""
    key = (str(session.get_bind().engine.url), project_id)
    counted_at, usage = _counted.get(key, (float("-inf"), None))
    if usage is None or time.monotonic() - counted_at > seconds:
        if len(_counted) >= KEPT_PROJECTS:
            _counted.clear()
        usage = used(session, project_id)
        _counted[key] = time.monotonic(), usage
    return usage


def exceeded(quota: int, before: Usage, more: int | None) -> HttpProblem:
    """413 with the quota in it."""
    needed = f", and this needs {more} more" if more is not None else ""
    detail = (
        f"The project may store {quota} bytes; {before.total} are taken{f' ({before})' if before.total else ''}{needed}. "
        "Delete datasets, open uploads, jobs or models."
    )
    storage = Quota("storage_bytes", limit=quota, used=before.total)
    return HttpProblem(413, "quota_exceeded", detail, limit_bytes=quota, quota=storage)
