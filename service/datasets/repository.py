"""All SQL of datasets and blobs."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, String, cast, func, or_, select
from sqlalchemy.orm import Session

from service.datasets.tables import Blob, Dataset
from service.jobs.states import ENDED
from service.jobs.tables import Job


def get(session: Session, project_id: str, dataset_id: str) -> Dataset | None:
    """The project's dataset of that id."""
    mine = select(Dataset).where(Dataset.id == dataset_id, Dataset.project_id == project_id)
    return session.scalars(mine).one_or_none()


def listing(
    session: Session, project_id: str, limit: int, after: str | None, status: str | None, name: str | None
) -> Sequence[Dataset]:
    """Newest first, one more than `limit`."""
    mine = select(Dataset).where(Dataset.project_id == project_id)
    if after:
        mine = mine.where(Dataset.id < after)
    if status:
        mine = mine.where(Dataset.state == status)
    if name:
        mine = mine.where(Dataset.name == name)
    return session.scalars(mine.order_by(Dataset.id.desc()).limit(limit + 1)).all()


def last_version(session: Session, project_id: str, name: str) -> Dataset | None:
    """The newest version of that name."""
    mine = select(Dataset).where(Dataset.project_id == project_id, Dataset.name == name)
    return session.scalars(mine.order_by(Dataset.version.desc()).limit(1)).first()


def locked_blob(session: Session, sha256: str) -> Blob | None:
    """The stored bytes with that hash, locked until the transaction ends."""
    stored = select(Blob).where(Blob.sha256 == sha256)
    return session.scalars(stored.with_for_update().execution_options(populate_existing=True)).one_or_none()


def owned_blob(session: Session, project_id: str, sha256: str) -> Blob | None:
    """The stored bytes with that hash, if a dataset of the project has them: a hash alone opens nobody else's."""
    owned = select(Dataset.id).where(Dataset.project_id == project_id, Dataset.blob_sha256 == sha256, _has_bytes())
    return session.get(Blob, sha256) if session.scalar(owned.limit(1)) is not None else None


def jobs_needing(session: Session, project_id: str, dataset_id: str) -> Sequence[Job]:
    """Jobs that have not ended and train on the dataset, or name it elsewhere in their spec (target, weights); locked."""
    named = cast(Job.spec, String).contains(dataset_id, autoescape=True)
    active = Job.state.not_in(ENDED)
    needing = select(Job).where(Job.project_id == project_id, active, or_(Job.dataset_id == dataset_id, named))
    return session.scalars(needing.order_by(Job.id).with_for_update()).all()


def named_by_jobs(session: Session, dataset_id: str) -> bool:
    """Whether any job, ended or not, was submitted with it."""
    return session.scalar(select(Job.id).where(Job.dataset_id == dataset_id).limit(1)) is not None


def others_with_bytes(session: Session, sha256: str, dataset_id: str) -> int:
    """How many other datasets, of any project, need the bytes."""
    needing = select(func.count()).where(Dataset.blob_sha256 == sha256, Dataset.id != dataset_id)
    return session.scalar(needing.where(_has_bytes())) or 0


def named_by_any(session: Session, sha256: str) -> bool:
    """Whether any dataset, even one whose bytes are gone, still names the blob."""
    return session.scalar(select(Dataset.id).where(Dataset.blob_sha256 == sha256).limit(1)) is not None


def _has_bytes() -> ColumnElement[bool]:
    """Not one whose bytes were deleted while jobs kept its record."""
    return or_(Dataset.error.is_(None), Dataset.error["code"].as_string() != "deleted")
