"""What a data worker may say of a dataset it has claimed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from service.database import db_now
from service.datasets.receive import Received
from service.datasets.service import keep
from service.datasets.tables import Blob, Dataset
from service.leases import StaleFence
from service.monitoring.after_commit import after_commit
from service.monitoring.metrics import DATASETS_CHECKED, blame
from service.storage import Storage
from trainkit.spec.failures import failure


@dataclass(frozen=True, slots=True)
class ClaimedDataset:
    """What an intake needs."""

    dataset_id: str
    fence: int
    storage_key: str
    filename: str | None
    kind: str | None
    target: str | None
    read_options: dict[str, Any] | None


def _take(session: Session, state: str, owner: str, lease_seconds: float) -> tuple[Dataset, int] | None:
    """(the oldest dataset in that state that nobody holds, its new fence). One winner; None if none waits."""
    free = or_(Dataset.lease_expires_at.is_(None), Dataset.lease_expires_at < db_now())
    waiting = select(Dataset).where(Dataset.state == state, free).order_by(Dataset.created_at).limit(8)
    for dataset in session.scalars(waiting).all():
        fence = session.execute(
            update(Dataset)
            .where(Dataset.id == dataset.id, Dataset.state == state, Dataset.fence == dataset.fence, free)
            .values(fence=Dataset.fence + 1, lease_owner=owner, lease_expires_at=db_now(plus=lease_seconds))
            .returning(Dataset.fence)
            .execution_options(synchronize_session=False)
        ).scalar_one_or_none()
        if fence is not None:
            return dataset, fence
    return None


def claim(session: Session, owner: str, lease_seconds: float) -> ClaimedDataset | None:
    """Take the oldest dataset that waits for its check, or whose checker has died."""
    taken = _take(session, "validating", owner, lease_seconds)
    if taken is None:
        return None
    dataset, fence = taken
    blob = session.get_one(Blob, dataset.blob_sha256)
    return ClaimedDataset(
        dataset.id, fence, blob.storage_key, dataset.filename, dataset.kind, dataset.target, dataset.read_options
    )


def renew(session: Session, dataset_id: str, fence: int, lease_seconds: float, **changes: Any) -> None:
    """Extend the lease and write `phase` or `progress`. Raises StaleFence when someone else has it."""
    _write(session, dataset_id, fence, lease_expires_at=db_now(plus=lease_seconds), **changes)


def ready(
    session: Session, dataset_id: str, fence: int, facts: dict[str, Any], report: dict[str, Any], prepared_key: str
) -> None:
    """The prepared form lies in storage: jobs may use it."""
    _write(
        session,
        dataset_id,
        fence,
        state="ready",
        kind=facts["kind"],
        samples=facts["samples"],
        facts=facts,
        report=report,
        prepared_key=prepared_key,
        phase=None,
        progress=None,
        lease_owner=None,
        lease_expires_at=None,
    )


def invalid(
    session: Session, dataset_id: str, fence: int, error: dict[str, Any], report: dict[str, Any] | None = None
) -> None:
    """The bytes are no dataset; `error` says where and why."""
    _write(
        session,
        dataset_id,
        fence,
        state="invalid",
        error=error,
        report=report,
        phase=None,
        progress=None,
        lease_owner=None,
        lease_expires_at=None,
    )


def interrupted(session: Session, dataset_id: str, fence: int, limit: int = 3) -> None:
    """The checking process died; after `limit` deaths the bytes are taken for the cause."""
    dataset = session.scalars(select(Dataset).where(Dataset.id == dataset_id, Dataset.fence == fence)).one_or_none()
    if dataset is None:
        raise StaleFence(dataset_id)
    deaths = dataset.interruptions + 1
    if deaths >= limit:
        message = f"reading the file killed the checking process {deaths} times"
        hint = "The file may need more memory than the worker has, or be damaged."
        invalid(session, dataset_id, fence, failure("intake_died", message, hint=hint))
    else:
        _write(
            session, dataset_id, fence, interruptions=deaths, lease_owner=None, lease_expires_at=None, notified_at=None
        )


@dataclass(frozen=True, slots=True)
class ClaimedSource:
    """What a fetch needs."""

    dataset_id: str
    fence: int
    uri: str


def claim_source(session: Session, owner: str, lease_seconds: float) -> ClaimedSource | None:
    """Take the oldest dataset whose bytes are still to be fetched, or whose fetcher has died."""
    taken = _take(session, "uploading", owner, lease_seconds)
    return None if taken is None else ClaimedSource(taken[0].id, taken[1], taken[0].source_uri or "")


def renew_source(
    session: Session, dataset_id: str, fence: int, lease_seconds: float, progress: dict[str, Any] | None = None
) -> None:
    """Extend the lease of a fetch. Raises StaleFence when someone else has it."""
    until = db_now(plus=lease_seconds)
    _write(session, dataset_id, fence, "uploading", lease_expires_at=until, phase="copying", progress=progress)


def fetched(session: Session, storage: Storage, dataset_id: str, fence: int, received: Received) -> None:
    """The bytes are there: store them, and let the dataset be checked. Raises StaleFence, IntegrityError (try again)."""
    _let_go(session, dataset_id, fence, state="validating", bytes=received.bytes)
    keep(session, storage, received)
    named = update(Dataset).where(Dataset.id == dataset_id).values(blob_sha256=received.sha256)
    session.execute(named.execution_options(synchronize_session=False))


def not_fetched(session: Session, dataset_id: str, fence: int, error: dict[str, Any]) -> None:
    """The file cannot be had; `error` says why. Raises StaleFence."""
    _let_go(session, dataset_id, fence, state="invalid", error=error)


def _let_go(session: Session, dataset_id: str, fence: int, **changes: Any) -> None:
    nobody = {"phase": None, "progress": None, "lease_owner": None, "lease_expires_at": None, "notified_at": None}
    _write(session, dataset_id, fence, "uploading", **nobody, **changes)


def _write(session: Session, dataset_id: str, fence: int, expected: str = "validating", **changes: Any) -> None:
    written = session.execute(
        update(Dataset)
        .where(Dataset.id == dataset_id, Dataset.fence == fence, Dataset.state == expected)
        .values(updated_at=db_now(), **changes)
        .returning(Dataset.id)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()
    if written is None:
        raise StaleFence(dataset_id)
    if changes.get("state") in ("ready", "invalid"):
        after_commit(session, DATASETS_CHECKED.labels(changes["state"], blame(changes.get("error"))[1]).inc)
