"""Rules of datasets: bytes are stored once, a dataset never changes, a new upload of a name is a new version."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.context import Context
from service.database import db_now, new_id
from service.datasets import repository
from service.datasets.receive import Received
from service.datasets.tables import Blob, Dataset
from service.errors import Problem, not_found
from service.keys.service import Principal

QUEUE = "data"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the client says of the bytes."""

    name: str
    kind: str | None = None
    target: str | None = None
    filename: str | None = None


def register(context: Context, who: Principal, received: Received, wish: Wish) -> Dataset:
    """Adopt received bytes as a new dataset version and ring for its check.

    The same bytes under the same name, kind and target are the same dataset: the existing version is returned.
    """
    key = f"blobs/{received.sha256[:2]}/{received.sha256}"
    context.storage.adopt(received.part, key)
    for _ in range(5):
        try:
            with context.sessions.begin() as session:
                dataset = _register(session, who, received, wish, key)
            break
        except IntegrityError:  # another upload of the same name or bytes was quicker: look again
            continue
    else:
        raise Problem(409, "busy_name", f"Many uploads of {wish.name!r} at once. Try again.")
    if dataset.state == "validating":
        context.doorbell.ring(QUEUE)
    return dataset


def _register(session: Session, who: Principal, received: Received, wish: Wish, key: str) -> Dataset:
    now = session.scalar(select(db_now()))
    assert now is not None
    previous = repository.last_version(session, who.project_id, wish.name)
    if previous is not None and _same(previous, received, wish):
        return previous
    if repository.blob(session, received.sha256) is None:
        session.add(Blob(sha256=received.sha256, bytes=received.bytes, storage_key=key, created_at=now))
        session.flush()
    dataset = Dataset(
        id=new_id("ds"),
        project_id=who.project_id,
        name=wish.name,
        version=previous.version + 1 if previous else 1,
        kind=wish.kind,
        target=wish.target,
        filename=wish.filename,
        state="validating",
        blob_sha256=received.sha256,
        bytes=received.bytes,
        created_at=now,
        updated_at=now,
    )
    session.add(dataset)
    return dataset


def _same(previous: Dataset, received: Received, wish: Wish) -> bool:
    kinds = (None, previous.kind)
    same_bytes = previous.blob_sha256 == received.sha256 and previous.state != "invalid"
    return same_bytes and wish.kind in kinds and wish.target == previous.target


def find(session: Session, who: Principal, dataset_id: str) -> Dataset:
    """The project's dataset. Raises a 404 problem."""
    dataset = repository.get(session, who.project_id, dataset_id)
    if dataset is None:
        raise not_found("dataset", dataset_id)
    return dataset


def delete(context: Context, who: Principal, dataset_id: str, *, force: bool) -> None:
    """Remove a dataset. 409 while jobs use it; with `force` only running jobs keep it."""
    doomed: list[str] = []
    with context.sessions.begin() as session:
        dataset = find(session, who, dataset_id)
        using = repository.jobs_using(session, dataset_id, active=force)
        if using:
            hint = "Wait for them, or cancel them." if force else "Delete the jobs first, or add ?force=true."
            shown = ", ".join(using[:5])
            raise Problem(409, "in_use", f"{len(using)} jobs use the dataset ({shown}). {hint}")
        if force and repository.jobs_using(session, dataset_id, active=False):
            # jobs keep the record of what they were trained on; only the bytes go
            dataset.state, dataset.error = "invalid", {"code": "deleted", "message": "the dataset was deleted"}
        else:
            session.delete(dataset)
        if not repository.others_with_blob(session, dataset.blob_sha256, dataset_id):
            stored = repository.blob(session, dataset.blob_sha256)
            if stored is not None:
                doomed.append(stored.storage_key)
                if dataset.state != "invalid":
                    session.flush()
                    session.delete(stored)
        if dataset.prepared_key and not repository.others_with_prepared(session, dataset.prepared_key, dataset_id):
            doomed.append(dataset.prepared_key)
    for key in doomed:
        context.storage.delete(key)
