"""SQL of API keys and of the projects that own them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from service.database import db_now
from service.keys.tables import ApiKey, Project


def project(session: Session, project_id: str) -> Project:
    """Return the project of a key: it always exists."""
    return session.get_one(Project, project_id)


def project_named(session: Session, name: str) -> Project | None:
    """Return the project of that name."""
    return session.scalars(select(Project).where(Project.name == name)).one_or_none()


def add(session: Session, row: Project | ApiKey) -> None:
    """Insert a project or a key."""
    session.add(row)
    session.flush()


def key(session: Session, key_id: str) -> ApiKey | None:
    """Return a key of any project."""
    return session.get(ApiKey, key_id)


def hashes_in_use(session: Session) -> Sequence[str]:
    """Return the hash of every key that is not revoked."""
    return session.scalars(select(ApiKey.secret_hash).where(ApiKey.revoked_at.is_(None))).all()


def owned_by(project_id: str | None) -> ColumnElement[bool]:
    """The condition of a project's keys; of those of the operator for None."""
    return ApiKey.project_id.is_(None) if project_id is None else ApiKey.project_id == project_id


def set_last_used(session: Session, key_id: str, address: str | None) -> None:
    """Write that the key has just been used, and from where."""
    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=db_now(), last_used_from=address))
