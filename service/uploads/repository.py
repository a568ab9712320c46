"""All SQL of uploads."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from service.database import db_now
from service.uploads.tables import Upload


def get(session: Session, project_id: str, upload_id: str) -> Upload | None:
    """The project's upload of that id."""
    mine = select(Upload).where(Upload.id == upload_id, Upload.project_id == project_id)
    return session.scalars(mine).one_or_none()


def expired(session: Session, upload: Upload) -> bool:
    """Whether it waited too long for its next bytes."""
    gone = select(Upload.id).where(Upload.id == upload.id, Upload.state == "uploading", Upload.expires_at <= db_now())
    return session.scalar(gone) is not None


def listing(session: Session, project_id: str, limit: int, after: str | None, state: str | None) -> Sequence[Upload]:
    """Newest first, one more than `limit`."""
    mine = select(Upload).where(Upload.project_id == project_id)
    if after:
        mine = mine.where(Upload.id < after)
    if state:
        mine = mine.where(Upload.state == state)
    return session.scalars(mine.order_by(Upload.id.desc()).limit(limit + 1)).all()


def locked(session: Session, upload_id: str) -> Upload | None:
    """The row, locked until the transaction ends."""
    one = select(Upload).where(Upload.id == upload_id).with_for_update()
    return session.scalars(one.execution_options(populate_existing=True)).one_or_none()


def advance(session: Session, upload_id: str, fence: int, received: int, keep_seconds: float) -> bool:
    """Note that so many bytes are on disk; False when another writer has taken over, or the upload is gone."""
    return _write(session, upload_id, fence, received=received, expires_at=db_now(plus=keep_seconds))


def complete(session: Session, upload_id: str, fence: int, received: int, sha256: str) -> bool:
    """Note that every byte is on disk, and their hash; False as above."""
    return _write(session, upload_id, fence, received=received, sha256=sha256, state="received")


def _write(session: Session, upload_id: str, fence: int, **changes: object) -> bool:
    written = session.execute(
        update(Upload)
        .where(Upload.id == upload_id, Upload.fence == fence, Upload.state == "uploading")
        .values(updated_at=db_now(), **changes)
        .returning(Upload.id)
        .execution_options(synchronize_session=False)
    )
    return written.scalar_one_or_none() is not None


def waiting_for_dataset(session: Session) -> Sequence[str]:
    """Uploads that were received whole, and whose process died before it made the dataset."""
    return session.scalars(select(Upload.id).where(Upload.state == "received").limit(20)).all()


def remove_expired(session: Session) -> Sequence[str]:
    """Delete rows whose time is over (not those about to become datasets); returns their ids."""
    doomed = delete(Upload).where(Upload.state != "received", Upload.expires_at < db_now())
    return session.scalars(doomed.returning(Upload.id).execution_options(synchronize_session=False)).all()


def any_expired(session: Session) -> bool:
    """Whether `remove_expired` would find something; asked by a reader, who keeps no writer waiting."""
    over = select(Upload.id).where(Upload.state != "received", Upload.expires_at < db_now())
    return session.scalar(over.limit(1)) is not None


def open_ones(session: Session, ids: Sequence[str]) -> set[str]:
    """Which of them still need their file."""
    return set(
        session.scalars(select(Upload.id).where(Upload.id.in_(ids), Upload.state.in_(("uploading", "received"))))
    )


def waits_with(session: Session, sha256: str) -> bool:
    """Whether an upload of those bytes is about to become a dataset."""
    waiting = select(Upload.id).where(Upload.sha256 == sha256, Upload.state == "received")
    return session.scalar(waiting.limit(1)) is not None
