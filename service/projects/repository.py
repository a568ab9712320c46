"""SQL of projects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.projects.tables import Project


def get(session: Session, project_id: str) -> Project:
    """The project of a key: it is always there."""
    return session.get_one(Project, project_id)


def find(session: Session, project_id: str) -> Project | None:
    """Return the project of that id."""
    return session.get(Project, project_id)


def named(session: Session, name: str) -> Project | None:
    """Return the project of that name."""
    return session.scalars(select(Project).where(Project.name == name)).one_or_none()


def add(session: Session, project: Project) -> None:
    """Insert a project."""
    session.add(project)
    session.flush()


def archived_ids(session: Session) -> Sequence[str]:
    """Return ids of all archived projects."""
    return session.scalars(select(Project.id).where(Project.archived_at.is_not(None)).order_by(Project.id)).all()


def locked(session: Session, project_id: str) -> Project:
    """The same, locked until the transaction ends. Rows that refer to it can be added meanwhile."""
    statement = select(Project).where(Project.id == project_id).with_for_update(key_share=True)
    return session.scalars(statement.execution_options(populate_existing=True)).one()


def setting_overrides(session: Session, project_id: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """(What the project has set for itself, what the operator has set for it)."""
    row = session.execute(select(Project.settings, Project.limits).where(Project.id == project_id)).one_or_none()
    return (None, None) if row is None else (row[0], row[1])


def all_settings(session: Session) -> list[tuple[str, dict[str, Any] | None]]:
    """(id, what it has set) of every project."""
    return [(row[0], row[1]) for row in session.execute(select(Project.id, Project.settings).order_by(Project.id))]
