"""SQL of API keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from service.database import db_now
from service.keys.tables import ApiKey


def add(session: Session, row: ApiKey) -> None:
    """Insert a key."""
    session.add(row)
    session.flush()


def key(session: Session, key_id: str) -> ApiKey | None:
    """Return a key of any project."""
    return session.get(ApiKey, key_id)


def locked(session: Session, key_id: str) -> ApiKey:
    """The same, locked until the transaction ends."""
    statement = select(ApiKey).where(ApiKey.id == key_id).with_for_update()
    return session.scalars(statement.execution_options(populate_existing=True)).one()


def hashes_in_use(session: Session) -> Sequence[str]:
    """Return the hash of every key that is not revoked."""
    return session.scalars(select(ApiKey.secret_hash).where(ApiKey.revoked_at.is_(None))).all()


def owned_by(project_id: str | None) -> ColumnElement[bool]:
    """The condition of a project's keys; of those of the operator for None."""
    return ApiKey.project_id.is_(None) if project_id is None else ApiKey.project_id == project_id


def of_user(user_id: str) -> ColumnElement[bool]:
    """The condition of a user's keys."""
    return ApiKey.user_id == user_id


def count_alive(session: Session, project_id: str, user_id: str, now: datetime) -> int:
    """Count the user's keys in the project that are neither revoked nor expired."""
    alive = ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now)
    counted = select(func.count()).select_from(ApiKey)
    return session.scalar(counted.where(ApiKey.user_id == user_id, ApiKey.project_id == project_id, *alive)) or 0


def set_last_used(session: Session, key_id: str, address: str | None) -> None:
    """Write that the key has just been used, and from where."""
    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=db_now(), last_used_from=address))
