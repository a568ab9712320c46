"""All SQL of datasets and blobs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, func, or_, select, text, update
from sqlalchemy.orm import Session

from service import process_identity
from service.database import db_now, db_time
from service.datasets.tables import UNMEASURED, Blob, DatasetVersion
from service.leases import Claim
from service.projects.tables import Project

UNREADY = ("uploading", "validating")
"""States in which a worker fetches the bytes, or checks them."""


def get(session: Session, project_id: str, dataset_id: str) -> DatasetVersion | None:
    """The project's dataset of that id."""
    statement = select(DatasetVersion).where(DatasetVersion.id == dataset_id, DatasetVersion.project_id == project_id)
    return session.scalars(statement).one_or_none()


def by_id(session: Session, dataset_id: str) -> DatasetVersion:
    """Return the dataset of a job or another row that refers to it."""
    return session.get_one(DatasetVersion, dataset_id)


def find_by_id(session: Session, dataset_id: str) -> DatasetVersion | None:
    """Return the dataset of that id, of any project; None when it was deleted."""
    return session.get(DatasetVersion, dataset_id)


def locked(session: Session, dataset_id: str) -> DatasetVersion | None:
    """Return the dataset, locked until the transaction ends; None when it was deleted."""
    statement = select(DatasetVersion).where(DatasetVersion.id == dataset_id)
    return session.scalars(statement.with_for_update().execution_options(populate_existing=True)).one_or_none()


def set_report(session: Session, dataset_id: str, report: dict[str, Any]) -> None:
    """Write the dataset's report."""
    written = update(DatasetVersion).where(DatasetVersion.id == dataset_id).values(report=report)
    session.execute(written.execution_options(synchronize_session=False))


def add(session: Session, dataset: DatasetVersion) -> None:
    """Insert a dataset. Raises IntegrityError when its name and version are taken."""
    session.add(dataset)
    session.flush()


def set_bytes(session: Session, dataset: DatasetVersion, size: int) -> None:
    """Write how many bytes the dataset counts against its project's quota."""
    session.execute(update(DatasetVersion).where(DatasetVersion.id == dataset.id).values(bytes=size))


def delete(session: Session, dataset: DatasetVersion) -> None:
    """Delete the row; its bytes stay."""
    session.delete(dataset)
    session.flush()


def last_version(session: Session, project_id: str, name: str) -> DatasetVersion | None:
    """The newest version of that name."""
    statement = select(DatasetVersion).where(DatasetVersion.project_id == project_id, DatasetVersion.name == name)
    return session.scalars(statement.order_by(DatasetVersion.version.desc()).limit(1)).first()


def locked_blob(session: Session, sha256: str) -> Blob | None:
    """The stored bytes with that hash, locked until the transaction ends."""
    stored = select(Blob).where(Blob.sha256 == sha256)
    return session.scalars(stored.with_for_update().execution_options(populate_existing=True)).one_or_none()


def add_blob(session: Session, sha256: str, size: int, storage_key: str) -> Blob:
    """Insert a blob. Raises IntegrityError when there is one with that hash."""
    blob = Blob(sha256=sha256, bytes=size, storage_key=storage_key, created_at=db_time(session))
    session.add(blob)
    session.flush()
    return blob


def delete_blob(session: Session, blob: Blob) -> None:
    """Delete the row; the caller, who has it locked, deletes the file."""
    session.delete(blob)
    session.flush()


def unreferenced_blobs(session: Session, older_than_seconds: float, limit: int) -> Sequence[str]:
    """Return hashes of blobs that no dataset refers to."""
    referenced = select(DatasetVersion.id).where(DatasetVersion.blob_sha256 == Blob.sha256).exists()
    old = Blob.created_at < db_now(plus=-older_than_seconds)
    return session.scalars(select(Blob.sha256).where(~referenced, old).limit(limit)).all()


def known_blobs(session: Session, hashes: Collection[str]) -> set[str]:
    """Return those of the hashes that have a row."""
    return set(session.scalars(select(Blob.sha256).where(Blob.sha256.in_(hashes))))


def needs_prepared(session: Session, claim: Claim, key: str) -> bool:
    """Whether the dataset is made of that prepared folder, or the check with that claim is still writing it."""
    found = select(DatasetVersion.state, DatasetVersion.fence, DatasetVersion.prepared_key).where(
        DatasetVersion.id == claim.id
    )
    row = session.execute(found).one_or_none()
    return row is not None and (row.prepared_key == key or (row.state == "validating" and row.fence == claim.fence))


def waiting(states: Collection[str]) -> Select[Any]:
    """Select datasets in those states that nobody works on; correlated with the project to be served."""
    return select(DatasetVersion.id).where(
        DatasetVersion.state.in_(states), _is_free(), DatasetVersion.project_id == Project.id
    )


def claim(
    session: Session, project_id: str, states: Collection[str], owner: str, lease_seconds: float
) -> tuple[DatasetVersion, Claim] | None:
    """Lease the project's oldest free dataset in those states to one winner; returns it with the claim."""
    oldest = select(DatasetVersion).where(
        DatasetVersion.project_id == project_id, DatasetVersion.state.in_(states), _is_free()
    )
    oldest = oldest.order_by(DatasetVersion.created_at, DatasetVersion.id).limit(1).with_for_update(skip_locked=True)
    dataset = session.scalars(oldest).one_or_none()
    if dataset is None:
        return None
    fence = session.execute(
        update(DatasetVersion)
        .where(DatasetVersion.id == dataset.id)
        .values(
            fence=DatasetVersion.fence + 1,
            lease_owner=owner,
            lease_process=process_identity.current(),
            lease_expires_at=db_now(plus=lease_seconds),
        )
        .returning(DatasetVersion.fence)
        .execution_options(synchronize_session=False)
    ).scalar_one()
    return dataset, Claim(dataset.id, fence)


def _is_free() -> ColumnElement[bool]:
    return or_(DatasetVersion.lease_expires_at.is_(None), DatasetVersion.lease_expires_at < db_now())


def claimed(session: Session, claim: Claim) -> DatasetVersion | None:
    """Return the dataset while that claim is its newest."""
    statement = select(DatasetVersion).where(DatasetVersion.id == claim.id, DatasetVersion.fence == claim.fence)
    return session.scalars(statement).one_or_none()


def write_claimed(session: Session, claim: Claim, in_state: str, **changes: Any) -> bool:
    """Update the dataset in that state under the claim; False when the fence is stale or the state has changed."""
    written = session.execute(
        update(DatasetVersion)
        .where(DatasetVersion.id == claim.id, DatasetVersion.fence == claim.fence, DatasetVersion.state == in_state)
        .values(updated_at=db_now(), **changes)
        .returning(DatasetVersion.id)
        .execution_options(synchronize_session=False)
    )
    return written.scalar_one_or_none() is not None


def set_blob(session: Session, dataset_id: str, sha256: str) -> None:
    """Let the dataset refer to stored bytes."""
    named = update(DatasetVersion).where(DatasetVersion.id == dataset_id).values(blob_sha256=sha256)
    session.execute(named.execution_options(synchronize_session=False))


def blob_of(session: Session, dataset: DatasetVersion) -> Blob:
    """Return the stored bytes of a dataset that has some."""
    return session.get_one(Blob, dataset.blob_sha256)


def owned_blob(session: Session, project_id: str, sha256: str) -> Blob | None:
    """The stored bytes with that hash, if a dataset of the project has them: a hash alone opens nobody else's."""
    owned = select(DatasetVersion.id).where(
        DatasetVersion.project_id == project_id, DatasetVersion.blob_sha256 == sha256, _has_bytes()
    )
    return session.get(Blob, sha256) if session.scalar(owned.limit(1)) is not None else None


def others_with_bytes(session: Session, sha256: str, dataset_id: str) -> int:
    """How many other datasets, of any project, need the bytes."""
    needing = select(func.count()).where(DatasetVersion.blob_sha256 == sha256, DatasetVersion.id != dataset_id)
    return session.scalar(needing.where(_has_bytes())) or 0


def is_referenced(session: Session, sha256: str) -> bool:
    """Whether any dataset, even one whose bytes were deleted, still refers to the blob."""
    return session.scalar(select(DatasetVersion.id).where(DatasetVersion.blob_sha256 == sha256).limit(1)) is not None


def _has_bytes() -> ColumnElement[bool]:
    """Not one whose bytes were deleted while jobs kept its record."""
    return or_(DatasetVersion.error.is_(None), DatasetVersion.error["code"].as_string() != "deleted")


def stored_bytes(session: Session, project_id: str) -> int:
    """Sum the bytes of a project's datasets: each stored blob once, and what running fetches will bring."""
    has_bytes = or_(DatasetVersion.error.is_(None), DatasetVersion.error["code"].as_string() != "deleted")
    blobs = select(DatasetVersion.blob_sha256).where(DatasetVersion.project_id == project_id, has_bytes)
    stored = session.scalar(select(func.sum(Blob.bytes)).where(Blob.sha256.in_(blobs))) or 0
    fetching = select(func.sum(DatasetVersion.bytes)).where(
        DatasetVersion.project_id == project_id, DatasetVersion.state == "uploading"
    )
    return int(stored) + int(session.scalar(fetching) or 0)


def prepared_bytes(session: Session, project_id: str) -> int:
    """Sum the bytes of the prepared forms of a project's datasets."""
    kept = select(func.sum(DatasetVersion.prepared_bytes)).where(
        DatasetVersion.project_id == project_id, DatasetVersion.prepared_key.is_not(None)
    )
    return int(session.scalar(kept) or 0)


def unmeasured(session: Session, limit: int) -> Sequence[tuple[str, str]]:
    """Return (id, key) of datasets that were prepared before their bytes were counted."""
    found = select(DatasetVersion.id, DatasetVersion.prepared_key).where(
        text(UNMEASURED), DatasetVersion.kind != "weights"
    )
    return [(row.id, row.prepared_key or "") for row in session.execute(found.limit(limit))]


def set_prepared_bytes(session: Session, dataset_id: str, key: str, size: int) -> None:
    """Write the bytes of a prepared form that is still the dataset's."""
    measured = update(DatasetVersion).where(DatasetVersion.id == dataset_id, DatasetVersion.prepared_key == key)
    session.execute(measured.values(prepared_bytes=size).execution_options(synchronize_session=False))


def has_blob(session: Session, project_id: str, sha256: str) -> bool:
    """Whether a dataset of the project has these bytes."""
    statement = select(DatasetVersion.id).where(
        DatasetVersion.project_id == project_id, DatasetVersion.blob_sha256 == sha256
    )
    return session.scalar(statement.limit(1)) is not None
