"""Rules of datasets: bytes are stored once, a dataset never changes, a new upload of a name is a new version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service import quota
from service.body_limits import too_large
from service.context import Context
from service.database import db_time, new_id, reading
from service.datasets import repository
from service.datasets.receive import Received
from service.datasets.references import DATASETS
from service.datasets.sources import source_of
from service.datasets.tables import DatasetVersion
from service.errors import HttpProblem
from service.principal import Principal
from service.registry import repository as names
from service.registry import service as registry
from service.registry.names import as_name
from service.storage import Storage

QUEUE = "data"
TRIES = 5
"""How often an upload that met another one of the same name or bytes begins again."""


@dataclass(frozen=True, slots=True)
class DatasetMetadata:
    """What the client declares about the bytes; None: detected from them."""

    name: str
    kind: str | None = None
    target: str | None = None
    filename: str | None = None
    read_options: dict[str, Any] | None = None
    """Overrides of what the readers would detect (`trainkit.spec.read_options`)."""


def register(context: Context, who: Principal, received: Received, metadata: DatasetMetadata) -> DatasetVersion:
    """Create a dataset version of received bytes and ring for its check.

    The same bytes with the same name, kind, target and read options are the same dataset: that version is returned.
    """
    for _ in range(TRIES):
        try:
            with context.sessions.begin() as session:
                quota.check(session, context.settings, who.project_id, received.bytes, sha256=received.sha256)
                dataset = admit(session, context.storage, who.project_id, received, metadata)
            break
        except IntegrityError:  # another upload of the same name or bytes was faster
            continue
    else:
        raise _busy(metadata.name)
    if dataset.state == "validating":
        context.doorbell.ring(QUEUE)
    return dataset


def register_stored(context: Context, who: Principal, sha256: str, metadata: DatasetMetadata) -> DatasetVersion | None:
    """Create a version as `register` does, of bytes that the project has stored already; None when they must be sent."""
    with reading(context.sessions) as session:
        blob = repository.owned_blob(session, who.project_id, sha256)
    if blob is None or not context.storage.exists(blob.storage_key):
        return None
    try:
        return register(context, who, Received(context.storage.new_part(), sha256, blob.bytes), metadata)
    except FileNotFoundError:  # deleted in the meantime
        return None


def reread(context: Context, who: Principal, reference: str, changes: Mapping[str, Any]) -> DatasetVersion:
    """Create a version of a dataset's stored bytes that is read in another way, and ring for its check.

    `changes` are `kind`, `target` and read options; None stands for "detected". Raises a 404 problem, and 409 when the
    bytes are not there.
    """
    with reading(context.sessions) as session:
        dataset = find(session, who, reference)
        sha256, size = dataset.blob_sha256, dataset.bytes
        options = {**(dataset.read_options or {}), **changes}
        metadata = DatasetMetadata(
            dataset.name,
            options.pop("kind", dataset.kind),
            options.pop("target", dataset.target),
            dataset.filename,
            {name: value for name, value in options.items() if value is not None} or None,
        )
    if sha256 is None:
        raise HttpProblem(409, "not_uploaded_yet", "The dataset has no bytes yet. Wait until its state is validating.")
    try:
        return register(context, who, Received(context.storage.new_part(), sha256, size), metadata)
    except FileNotFoundError:
        raise HttpProblem(
            409, "bytes_missing", "The dataset's bytes are gone from storage. Upload them again."
        ) from None


def upload_limit(
    context: Context, who: Principal, size: int | None, sha256: str | None
) -> tuple[int, HttpProblem | None]:
    """Return how many bytes may be sent, and the problem for more. Raises 413 problems when `size` is too large."""
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
    left = limit - before.total
    if left >= settings.max_upload_bytes:
        return settings.max_upload_bytes, None
    return left, quota.exceeded(limit, before, None)


def store_blob(session: Session, storage: Storage, received: Received) -> None:
    """Move the bytes to their place while the blob's row is locked, so that no deletion comes in between.

    Safe to repeat after a death. Raises FileNotFoundError when the bytes are neither received nor stored.
    """
    blob = repository.locked_blob(session, received.sha256)
    if blob is None:
        key = f"blobs/{received.sha256[:2]}/{received.sha256}"
        blob = repository.add_blob(session, received.sha256, received.bytes, key)
    if not storage.exists(blob.storage_key):
        storage.adopt(received.part, blob.storage_key)


def admit(
    session: Session, storage: Storage, project_id: str, received: Received, metadata: DatasetMetadata
) -> DatasetVersion:
    """Store received bytes and create their dataset, in the caller's transaction; the caller rings the queue `data`.

    Raises IntegrityError when another upload of the same name or bytes was faster: then begin again.
    """
    # the name is locked: of the same file that is sent twice at once the second finds the first
    names.lock_name(session, project_id, DATASETS, metadata.name)
    previous = repository.last_version(session, project_id, metadata.name)
    store_blob(session, storage, received)
    if previous is not None and _is_same(previous, received, metadata):
        return previous
    dataset = _next_version(session, project_id, metadata)
    dataset.state, dataset.blob_sha256, dataset.bytes = "validating", received.sha256, received.bytes
    repository.add(session, dataset)
    return dataset


def _next_version(session: Session, project_id: str, metadata: DatasetMetadata) -> DatasetVersion:
    now = db_time(session)
    return DatasetVersion(
        id=new_id("ds"),
        project_id=project_id,
        name=metadata.name,
        version=names.next_version(session, project_id, DATASETS, metadata.name),
        kind=metadata.kind,
        target=metadata.target,
        filename=metadata.filename,
        read_options=metadata.read_options,
        created_at=now,
        updated_at=now,
    )


def register_source(context: Context, who: Principal, uri: str, metadata: DatasetMetadata) -> DatasetVersion:
    """Create a dataset whose bytes a data worker fetches from `uri`.

    Raises:
        Problem: 422 for a URI that is not allowed or not readable, 413 for a file beyond the limits.
    """
    filename, size = source_of(uri, context.settings.file_roots, context.settings.s3_buckets)
    if size > context.settings.max_upload_bytes:
        raise too_large(context.settings.max_upload_bytes)
    name = metadata.name or as_name(filename.split(".")[0]) or "dataset"
    metadata = replace(metadata, name=name, filename=filename[:300])
    for _ in range(TRIES):
        try:
            with context.sessions.begin() as session:
                quota.check(session, context.settings, who.project_id, size)
                dataset = _next_version(session, who.project_id, metadata)
                dataset.state, dataset.source_uri, dataset.bytes = "uploading", uri, size
                repository.add(session, dataset)
            break
        except IntegrityError:  # another upload of the same name was faster
            continue
    else:
        raise _busy(metadata.name)
    context.doorbell.ring(QUEUE)
    return dataset


def _busy(name: str) -> HttpProblem:
    return HttpProblem(409, "busy_name", f"Too many uploads of the dataset {name!r} at once. Try again.")


def _is_same(previous: DatasetVersion, received: Received, metadata: DatasetMetadata) -> bool:
    kinds = (None, previous.kind)
    same_bytes = previous.blob_sha256 == received.sha256 and previous.state != "invalid"
    return (
        same_bytes
        and metadata.kind in kinds
        and (metadata.target, metadata.read_options) == (previous.target, previous.read_options)
    )


def find(session: Session, who: Principal, reference: str) -> DatasetVersion:
    """The project's dataset of that id, name, `name:version` or `name@alias`. Raises a 404 problem."""
    return registry.find(session, who.project_id, DATASETS, reference)
