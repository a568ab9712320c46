"""Rules of datasets: bytes are stored once, a dataset never changes, a new upload of a name is a new version."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service import quota
from service.body_limits import too_large
from service.context import Context
from service.database import db_now, new_id, reading
from service.datasets import repository
from service.datasets.receive import Received
from service.datasets.sources import source_of
from service.datasets.tables import Blob, Dataset
from service.errors import Problem, not_found
from service.jobs.cancellation import withdraw
from service.keys.service import Principal
from service.storage import Storage
from trainkit.spec.failures import failure

QUEUE = "data"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the client says of the bytes."""

    name: str
    kind: str | None = None
    target: str | None = None
    filename: str | None = None
    read_options: dict[str, Any] | None = None
    """Overrides of what the readers would find out (`trainkit.spec.read_options`)."""


def register(context: Context, who: Principal, received: Received, wish: Wish) -> Dataset:
    """Adopt received bytes as a new dataset version and ring for its check.

    The same bytes under the same name, kind, target and reading are the same dataset: the existing version is returned.
    """
    for _ in range(5):
        try:
            with context.sessions.begin() as session:
                quota.check(session, context.settings, who.project_id, received.bytes, sha256=received.sha256)
                dataset = admit(session, context.storage, who.project_id, received, wish)
            break
        except IntegrityError:  # another upload of the same name or bytes was quicker: look again
            continue
    else:
        raise Problem(409, "busy_name", f"Many uploads of {wish.name!r} at once. Try again.")
    if dataset.state == "validating":
        context.doorbell.ring(QUEUE)
    return dataset


def register_again(context: Context, who: Principal, sha256: str, wish: Wish) -> Dataset | None:
    """As `register`, of bytes that the project has stored already; None when they must be sent."""
    with reading(context.sessions) as session:
        blob = repository.owned_blob(session, who.project_id, sha256)
    if blob is None or not context.storage.exists(blob.storage_key):
        return None
    try:
        return register(context, who, Received(context.storage.new_part(), sha256, blob.bytes), wish)
    except FileNotFoundError:  # deleted a moment ago
        return None


def room(context: Context, who: Principal, size: int | None, sha256: str | None) -> tuple[int, Problem | None]:
    """How many bytes may come, and how to refuse more. Raises 413 problems when `size` is too much already."""
    settings = context.settings
    if size is not None and size > settings.max_upload_bytes:
        raise too_large(settings.max_upload_bytes)
    with reading(context.sessions) as session:
        limit = quota.limit(session, settings, who.project_id)
    if limit is None:
        return settings.max_upload_bytes, None
    with context.sessions.begin() as session:
        quota.check(session, settings, who.project_id, size or 0, sha256=sha256)
        if sha256 is not None and size is not None:
            return min(size, settings.max_upload_bytes), None
        before = quota.used(session, who.project_id)
    left = limit - before
    if left >= settings.max_upload_bytes:
        return settings.max_upload_bytes, None
    return left, quota.exceeded(limit, before, None)


def keep(session: Session, storage: Storage, received: Received) -> None:
    """Give the bytes their name while the blob's row is locked, so that a deletion cannot pass between.

    Safe to repeat after a death. Raises FileNotFoundError when the bytes are neither here nor stored already.
    """
    blob = repository.locked_blob(session, received.sha256)
    if blob is None:
        now = session.scalar(select(db_now()))
        key = f"blobs/{received.sha256[:2]}/{received.sha256}"
        blob = Blob(sha256=received.sha256, bytes=received.bytes, storage_key=key, created_at=now)
        session.add(blob)
        session.flush()
    if not storage.exists(blob.storage_key):
        storage.adopt(received.part, blob.storage_key)


def admit(session: Session, storage: Storage, project_id: str, received: Received, wish: Wish) -> Dataset:
    """Store received bytes and make a dataset of them, in the caller's transaction; the caller rings `data`.

    Raises IntegrityError when another upload of the same name or bytes was quicker: then begin again.
    """
    previous = repository.last_version(session, project_id, wish.name)
    keep(session, storage, received)
    if previous is not None and _same(previous, received, wish):
        return previous
    dataset = _row(session, project_id, wish)
    dataset.state, dataset.blob_sha256, dataset.bytes = "validating", received.sha256, received.bytes
    session.add(dataset)
    session.flush()
    return dataset


def _row(session: Session, project_id: str, wish: Wish) -> Dataset:
    """The next version of a name, without bytes."""
    now = session.scalar(select(db_now()))
    assert now is not None
    previous = repository.last_version(session, project_id, wish.name)
    return Dataset(
        id=new_id("ds"),
        project_id=project_id,
        name=wish.name,
        version=previous.version + 1 if previous else 1,
        kind=wish.kind,
        target=wish.target,
        filename=wish.filename,
        read_options=wish.read_options,
        created_at=now,
        updated_at=now,
    )


def register_source(context: Context, who: Principal, uri: str, wish: Wish) -> Dataset:
    """A dataset whose bytes a data worker fetches from `uri`. Raises 422 (where it points) and 413 problems."""
    filename, size = source_of(uri, context.settings.file_roots, context.settings.s3_buckets)
    if size > context.settings.max_upload_bytes:
        raise too_large(context.settings.max_upload_bytes)
    for _ in range(5):
        try:
            with context.sessions.begin() as session:
                quota.check(session, context.settings, who.project_id, size)
                name = wish.name or filename.split(".")[0][:200] or "dataset"
                dataset = _row(session, who.project_id, replace(wish, name=name, filename=filename[:300]))
                dataset.state, dataset.source_uri, dataset.bytes = "uploading", uri, size
                session.add(dataset)
            break
        except IntegrityError:  # another upload of the same name was quicker: look again
            continue
    else:
        raise Problem(409, "busy_name", f"Many uploads of {wish.name!r} at once. Try again.")
    context.doorbell.ring(QUEUE)
    return dataset


def _same(previous: Dataset, received: Received, wish: Wish) -> bool:
    kinds = (None, previous.kind)
    same_bytes = previous.blob_sha256 == received.sha256 and previous.state != "invalid"
    return (
        same_bytes
        and wish.kind in kinds
        and (wish.target, wish.read_options) == (previous.target, previous.read_options)
    )


def find(session: Session, who: Principal, dataset_id: str) -> Dataset:
    """The project's dataset. Raises a 404 problem."""
    dataset = repository.get(session, who.project_id, dataset_id)
    if dataset is None:
        raise not_found("dataset", dataset_id)
    return dataset


def delete(context: Context, who: Principal, dataset_id: str, *, force: bool) -> None:
    """Remove a dataset. 409 while jobs that have not ended use it; with `force` they are cancelled.

    Of a dataset that ended jobs were trained on the record stays, and its bytes go.
    """
    with context.sessions.begin() as session:
        dataset = find(session, who, dataset_id)
        stored = repository.locked_blob(session, dataset.blob_sha256) if dataset.blob_sha256 else None
        using = repository.jobs_needing(session, who.project_id, dataset_id)
        if using and not force:
            shown = ", ".join(job.id for job in using[:5])
            hint = "Wait for them or cancel them, or add ?force=true to cancel them all."
            raise Problem(409, "in_use", f"{len(using)} jobs that have not ended use the dataset ({shown}). {hint}")
        for job in using:
            withdraw(session, job, actor=who.actor, reason=f"dataset {dataset_id} was deleted")
        prepared, kept = dataset.prepared_key, repository.named_by_jobs(session, dataset_id)
        if kept:
            # jobs keep the record of what they were trained on; only the bytes go
            message = "the dataset was deleted"
            hint = "Upload it again."
            dataset.state, dataset.prepared_key = "invalid", None
            dataset.error = failure("deleted", message, hint=hint)
        else:
            session.delete(dataset)
        session.flush()
        if stored is not None and not repository.others_with_bytes(session, stored.sha256, dataset_id):
            if not repository.named_by_any(session, stored.sha256):
                session.delete(stored)
                session.flush()
            # still under the lock: whoever uploads the same bytes now waits, and then stores them anew
            context.storage.delete(stored.storage_key)
    if prepared is not None:
        context.storage.delete(prepared)
