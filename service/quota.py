"""How much a project may store: its datasets' bytes, each counted once, and what its open uploads will take."""

from __future__ import annotations

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from service.datasets.tables import Blob, Dataset
from service.errors import Problem
from service.keys.tables import Project
from service.projects.service import rules
from service.settings import Settings
from service.uploads.tables import Upload

OPEN = ("uploading", "received")


def limit(session: Session, settings: Settings, project_id: str) -> int | None:
    """The project's quota in bytes; None: no limit."""
    return rules(session, settings, project_id).quota_bytes


def used(session: Session, project_id: str, *, without_upload: str | None = None) -> int:
    """Bytes that count against the project's quota."""
    has_bytes = or_(Dataset.error.is_(None), Dataset.error["code"].as_string() != "deleted")
    mine = select(Dataset.blob_sha256).where(Dataset.project_id == project_id, has_bytes)
    stored = session.scalar(select(func.sum(Blob.bytes)).where(Blob.sha256.in_(mine))) or 0
    fetching = select(func.sum(Dataset.bytes)).where(Dataset.project_id == project_id, Dataset.state == "uploading")
    stored += session.scalar(fetching) or 0
    coming = select(func.sum(func.coalesce(Upload.length, Upload.received))).where(
        Upload.project_id == project_id, Upload.state.in_(OPEN)
    )
    if without_upload is not None:
        coming = coming.where(Upload.id != without_upload)
    return int(stored) + int(session.scalar(coming) or 0)


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
    session.execute(select(Project.id).where(Project.id == project_id).with_for_update())
    if sha256 is not None:
        mine = select(Dataset.id).where(Dataset.project_id == project_id, Dataset.blob_sha256 == sha256).limit(1)
        if session.scalar(mine) is not None:
            return
    before = used(session, project_id)
    if before + more > quota:
        raise exceeded(quota, before, more)


def exceeded(quota: int, before: int, more: int | None) -> Problem:
    """413 with the quota in it."""
    wanted = f", and this needs {more} more" if more is not None else ""
    detail = f"The project may store {quota} bytes; {before} are taken{wanted}. Delete datasets or open uploads."
    return Problem(413, "quota_exceeded", detail, limit_bytes=quota)
