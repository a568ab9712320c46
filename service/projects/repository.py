"""SQL of projects' settings."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.keys.tables import Project


def get(session: Session, project_id: str) -> Project:
    """The project of a key: it is always there."""
    return session.get_one(Project, project_id)


def locked(session: Session, project_id: str) -> Project:
    """The same, locked until the transaction ends."""
    statement = select(Project).where(Project.id == project_id).with_for_update()
    return session.scalars(statement.execution_options(populate_existing=True)).one()


def setting_overrides(session: Session, project_id: str) -> dict[str, Any] | None:
    """What the project has set for itself."""
    return session.scalar(select(Project.settings).where(Project.id == project_id))


def all_settings(session: Session) -> list[tuple[str, dict[str, Any] | None]]:
    """(id, what it has set) of every project."""
    return [(row[0], row[1]) for row in session.execute(select(Project.id, Project.settings).order_by(Project.id))]
