"""How much a project may store: its datasets' bytes, each counted once, and what its open uploads will take."""

from __future__ import annotations

from sqlalchemy.orm import Session

from service.datasets import repository as datasets
from service.errors import HttpProblem
from service.projects import repository as projects
from service.projects.service import rules
from service.settings import Settings
from service.uploads import repository as uploads


def limit(session: Session, settings: Settings, project_id: str) -> int | None:
    """The project's quota in bytes; None: no limit."""
    return rules(session, settings, project_id).quota_bytes


def used(session: Session, project_id: str, *, without_upload: str | None = None) -> int:
    """Return the bytes that count against the project's quota."""
    return datasets.stored_bytes(session, project_id) + uploads.open_bytes(session, project_id, without=without_upload)


def room(session: Session, settings: Settings, project_id: str, *, without_upload: str | None = None) -> int:
    """Bytes that one more upload may have: what the quota leaves, and no more than the largest upload."""
    largest, quota = settings.max_upload_bytes, limit(session, settings, project_id)
    if quota is None:
        return largest
    return max(0, min(largest, quota - used(session, project_id, without_upload=without_upload)))


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
    if before + more > quota:
        raise exceeded(quota, before, more)


def exceeded(quota: int, before: int, more: int | None) -> HttpProblem:
    """413 with the quota in it."""
    needed = f", and this needs {more} more" if more is not None else ""
    detail = f"The project may store {quota} bytes; {before} are taken{needed}. Delete datasets or open uploads."
    return HttpProblem(413, "quota_exceeded", detail, limit_bytes=quota)
