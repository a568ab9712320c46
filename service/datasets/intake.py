"""The data worker's side of datasets: claim one, check or fetch it, and report the result under the fence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from service import quota
from service.database import after_commit, db_now
from service.datasets import repository
from service.datasets.receive import Received
from service.datasets.service import store_blob
from service.datasets.tables import DatasetVersion
from service.fair_share import repository as fair_share
from service.fair_share.admission import Admission, admit_all
from service.instrumentation import DATASETS_CHECKED, error_labels
from service.leases import Claim, StaleFence
from service.settings import Settings
from service.storage import Storage
from trainkit.spec.failures import failure


@dataclass(frozen=True, slots=True)
class ClaimedDataset:
    """A dataset whose bytes are to be checked."""

    claim: Claim
    storage_key: str
    filename: str | None
    kind: str | None
    target: str | None
    read_options: dict[str, Any] | None

    @property
    def dataset_id(self) -> str:
        return self.claim.id


@dataclass(frozen=True, slots=True)
class ClaimedSource:
    """A dataset whose bytes are to be fetched."""

    claim: Claim
    uri: str

    @property
    def dataset_id(self) -> str:
        return self.claim.id


def claim(session: Session, owner: str, lease_seconds: float) -> ClaimedDataset | None:
    """Claim the next dataset that waits for its check, or whose lease has expired; None when there is none."""
    claimed = _claim(session, owner, lease_seconds, ("validating",))
    return None if claimed is None else _to_check(session, *claimed)


def claim_next(
    session: Session, owner: str, lease_seconds: float, admits: Admission
) -> ClaimedDataset | ClaimedSource | None:
    """Claim the next dataset to check, or to fetch first; None when there is none that this worker may begin."""
    claimed = _claim(session, owner, lease_seconds, repository.UNREADY, admits)
    if claimed is None:
        return None
    dataset, claim = claimed
    if dataset.state == "uploading":
        return ClaimedSource(claim, dataset.source_uri or "")
    return _to_check(session, dataset, claim)


def _claim(
    session: Session, owner: str, lease_seconds: float, states: tuple[str, ...], admits: Admission = admit_all
) -> tuple[DatasetVersion, Claim] | None:
    """Claim the next dataset in one of those states, of the project whose turn it is."""
    in_progress = fair_share.questions_in_progress()
    for project_id in fair_share.order(session, "data", repository.waiting(states), in_progress):
        if not admits(project_id, "heavy"):
            continue
        if (claimed := repository.claim(session, project_id, states, owner, lease_seconds)) is not None:
            fair_share.record_served(session, project_id, "data")
            return claimed
    return None


def _to_check(session: Session, dataset: DatasetVersion, claim: Claim) -> ClaimedDataset:
    blob = repository.blob_of(session, dataset)
    return ClaimedDataset(claim, blob.storage_key, dataset.filename, dataset.kind, dataset.target, dataset.read_options)


def renew(session: Session, claim: Claim, lease_seconds: float, **changes: Any) -> None:
    """Extend the lease and write `phase` or `progress`. Raises StaleFence when someone else has it."""
    _write(session, claim, lease_expires_at=db_now(plus=lease_seconds), **changes)


def check_quota(session: Session, settings: Settings, claim: Claim, prepared_bytes: int) -> None:
    """Raise a 413 problem when the project has no room for the prepared form. Raises StaleFence."""
    dataset = repository.claimed(session, claim)
    if dataset is None:
        raise StaleFence(claim.id)
    quota.check(session, settings, dataset.project_id, prepared_bytes)


def ready(
    session: Session,
    claim: Claim,
    facts: dict[str, Any],
    report: dict[str, Any],
    prepared_key: str,
    prepared_bytes: int = 0,
) -> None:
    """Publish the dataset: its prepared form is in storage. Raises StaleFence."""
    _write(
        session,
        claim,
        state="ready",
        kind=facts["kind"],
        samples=facts["samples"],
        facts=facts,
        report=report,
        prepared_key=prepared_key,
        prepared_bytes=prepared_bytes,
        phase=None,
        progress=None,
        lease_owner=None,
        lease_expires_at=None,
    )


def invalid(session: Session, claim: Claim, error: dict[str, Any], report: dict[str, Any] | None = None) -> None:
    """Reject the bytes with the error that says where and why. Raises StaleFence."""
    _write(
        session,
        claim,
        state="invalid",
        error=error,
        report=report,
        phase=None,
        progress=None,
        lease_owner=None,
        lease_expires_at=None,
    )


def interrupted(session: Session, claim: Claim, limit: int = 3) -> None:
    """Release a dataset whose checking process died, or reject it after `limit` deaths. Raises StaleFence."""
    dataset = repository.claimed(session, claim)
    if dataset is None:
        raise StaleFence(claim.id)
    deaths = dataset.interruptions + 1
    if deaths >= limit:
        message = f"reading the file killed the checking process {deaths} times"
        hint = "The file may need more memory than the worker has, or be damaged."
        invalid(session, claim, failure("intake_died", message, hint=hint))
    else:
        _write(session, claim, interruptions=deaths, lease_owner=None, lease_expires_at=None)


def claim_source(session: Session, owner: str, lease_seconds: float) -> ClaimedSource | None:
    """Claim the next dataset whose bytes are to be fetched, or whose lease has expired; None when there is none."""
    claimed = _claim(session, owner, lease_seconds, ("uploading",))
    return None if claimed is None else ClaimedSource(claimed[1], claimed[0].source_uri or "")


def renew_source(session: Session, claim: Claim, lease_seconds: float, progress: dict[str, Any] | None = None) -> None:
    """Extend the lease of a fetch. Raises StaleFence when someone else has it."""
    until = db_now(plus=lease_seconds)
    _write(session, claim, "uploading", lease_expires_at=until, phase="copying", progress=progress)


def fetched(session: Session, storage: Storage, claim: Claim, received: Received) -> None:
    """Store the fetched bytes and queue the dataset's check. Raises StaleFence, and IntegrityError: then try again."""
    _release(session, claim, state="validating", bytes=received.bytes)
    store_blob(session, storage, received)
    repository.set_blob(session, claim.id, received.sha256)


def not_fetched(session: Session, claim: Claim, error: dict[str, Any]) -> None:
    """Reject a dataset whose file cannot be fetched, with the error that says why. Raises StaleFence."""
    _release(session, claim, state="invalid", error=error)


def _release(session: Session, claim: Claim, **changes: Any) -> None:
    unleased = {"phase": None, "progress": None, "lease_owner": None, "lease_expires_at": None}
    _write(session, claim, "uploading", **unleased, **changes)


def _write(session: Session, claim: Claim, expected: str = "validating", **changes: Any) -> None:
    if not repository.write_claimed(session, claim, expected, **changes):
        raise StaleFence(claim.id)
    if changes.get("state") in ("ready", "invalid"):
        after_commit(session, DATASETS_CHECKED.labels(changes["state"], error_labels(changes.get("error"))[1]).inc)
