"""SQL of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.database import db_now
from service.models.tables import Model


def get(session: Session, project_id: str, model_id: str) -> Model | None:
    """Return the project's model of that id."""
    statement = select(Model).where(Model.id == model_id, Model.project_id == project_id)
    return session.scalars(statement).one_or_none()


def stored_bytes(session: Session, project_id: str) -> int:
    """Sum the bytes of a project's models."""
    return int(session.scalar(select(func.sum(Model.bytes)).where(Model.project_id == project_id)) or 0)


def unhashed(session: Session, limit: int) -> list[str]:
    """Return storage keys of models whose files have not been hashed."""
    return list(session.scalars(select(Model.storage_key).where(Model.digests.is_(None)).limit(limit)))


def set_digests(session: Session, storage_key: str, found: Mapping[str, Any]) -> None:
    """Write what the files of a model's folder hash to; what is known stays."""
    rows = select(Model).where(Model.storage_key == storage_key).with_for_update()
    for model in session.scalars(rows):
        model.digests = {**found, **(model.digests or {})}


def add_digests(session: Session, storage_key: str, found: Mapping[str, Any]) -> None:
    """Add the hash of a new file, unless housekeeping has yet to read all of the model's files."""
    rows = select(Model).where(Model.storage_key == storage_key, Model.digests.is_not(None)).with_for_update()
    for model in session.scalars(rows):
        model.digests = {**(model.digests or {}), **found}


def delete(session: Session, model: Model) -> None:
    """Delete the row; its files stay."""
    session.delete(model)


def update_model(session: Session, model_id: str, changes: Mapping[str, Any]) -> None:
    """Write columns of a model and its `updated_at`."""
    statement = update(Model).where(Model.id == model_id).values(updated_at=db_now(), **changes)
    session.execute(statement.execution_options(synchronize_session=False))


def of_job(session: Session, project_id: str, job_id: str) -> Model | None:
    """Return the newest model of a job."""
    statement = select(Model).where(Model.job_id == job_id, Model.project_id == project_id).order_by(Model.id.desc())
    return session.scalars(statement.limit(1)).first()
