"""All SQL of uploads."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from service.audit.changes import record
from service.database import db_now
from service.leases import Claim
from service.uploads.tables import Upload


def get(session: Session, project_id: str, upload_id: str) -> Upload | None:
    """The project's upload of that id."""
    statement = select(Upload).where(Upload.id == upload_id, Upload.project_id == project_id)
    return session.scalars(statement).one_or_none()


def expired(session: Session, upload: Upload) -> bool:
    """Whether the time for its next bytes is over."""
    overdue = select(Upload.id).where(
        Upload.id == upload.id, Upload.state == "uploading", Upload.expires_at <= db_now()
    )
    return session.scalar(overdue) is not None


def add(session: Session, upload: Upload) -> None:
    """Insert an upload."""
    session.add(upload)
    session.flush()


def delete_row(session: Session, upload: Upload) -> None:
    """Delete the row; the caller deletes the file."""
    session.delete(upload)
    session.flush()


def locked(session: Session, upload_id: str) -> Upload | None:
    """The row, locked until the transaction ends."""
    one = select(Upload).where(Upload.id == upload_id).with_for_update()
    return session.scalars(one.execution_options(populate_existing=True)).one_or_none()


def advance(session: Session, claim: Claim, received: int, keep_seconds: float) -> bool:
    """Record that so many bytes are on disk; False when another writer has the upload or it was deleted."""
    return _write(session, claim, received=received, expires_at=db_now(plus=keep_seconds))


def complete(session: Session, claim: Claim, received: int, sha256: str) -> bool:
    """Record that all bytes are on disk, and their hash; False as in `advance`."""
    return _write(session, claim, received=received, sha256=sha256, state="received")


def _write(session: Session, claim: Claim, **changes: object) -> bool:
    written = session.execute(
        update(Upload)
        .where(Upload.id == claim.id, Upload.fence == claim.fence, Upload.state == "uploading")
        .values(updated_at=db_now(), **changes)
        .returning(Upload.id)
        .execution_options(synchronize_session=False)
    )
    return written.scalar_one_or_none() is not None


def waiting_for_dataset(session: Session) -> Sequence[str]:
    """Return uploads received in full whose process died before it created the dataset."""
    return session.scalars(select(Upload.id).where(Upload.state == "received").limit(20)).all()


def delete_expired(session: Session) -> Sequence[str]:
    """Delete expired rows, but not those about to become datasets; returns their ids."""
    doomed = delete(Upload).where(Upload.state != "received", Upload.expires_at < db_now())
    lost = doomed.returning(Upload.id, Upload.project_id, Upload.state, Upload.name)
    expired = session.execute(lost.execution_options(synchronize_session=False)).all()
    for row in expired:
        record(session, "upload", row.id, row.project_id, {"state": row.state, "name": row.name}, None)
    return [row.id for row in expired]


def any_expired(session: Session) -> bool:
    """Whether `delete_expired` would delete something; a read, which keeps no writer waiting on SQLite."""
    over = select(Upload.id).where(Upload.state != "received", Upload.expires_at < db_now())
    return session.scalar(over.limit(1)) is not None


def unfinished(session: Session, ids: Sequence[str]) -> set[str]:
    """Return those of the uploads that still need their file."""
    return set(
        session.scalars(select(Upload.id).where(Upload.id.in_(ids), Upload.state.in_(("uploading", "received"))))
    )


def has_received(session: Session, sha256: str) -> bool:
    """Whether an upload with these bytes is about to become a dataset."""
    waiting = select(Upload.id).where(Upload.sha256 == sha256, Upload.state == "received")
    return session.scalar(waiting.limit(1)) is not None


def count_open(session: Session, project_id: str) -> int:
    """Count a project's unfinished uploads."""
    unfinished = select(func.count()).where(
        Upload.project_id == project_id, Upload.state.in_(("uploading", "received"))
    )
    return session.scalar(unfinished) or 0


def open_bytes(session: Session, project_id: str, *, without: str | None = None) -> int:
    """Sum the bytes that a project's open uploads will have, one of them left out."""
    coming = select(func.sum(func.coalesce(Upload.length, Upload.received))).where(
        Upload.project_id == project_id, Upload.state.in_(("uploading", "received"))
    )
    if without is not None:
        coming = coming.where(Upload.id != without)
    return int(session.scalar(coming) or 0)
