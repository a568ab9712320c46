"""SQL of models."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.models.tables import Model


def get(session: Session, project_id: str, model_id: str) -> Model | None:
    """Return the project's model of that id."""
    statement = select(Model).where(Model.id == model_id, Model.project_id == project_id)
    return session.scalars(statement).one_or_none()


def listing(session: Session, project_id: str, limit: int, after: str | None) -> Sequence[Model]:
    """Return models, newest first, one more than `limit`."""
    statement = select(Model).where(Model.project_id == project_id)
    if after:
        statement = statement.where(Model.id < after)
    return session.scalars(statement.order_by(Model.id.desc()).limit(limit + 1)).all()


def stored_bytes(session: Session, project_id: str) -> int:
    """Sum the bytes of a project's models."""
    return int(session.scalar(select(func.sum(Model.bytes)).where(Model.project_id == project_id)) or 0)


def delete(session: Session, model: Model) -> None:
    """Delete the row; its files stay."""
    session.delete(model)
