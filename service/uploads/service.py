"""Rules of uploads: one writer at a time, the database holds the offset, the last byte creates the dataset once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from service import quota
from service.body_limits import too_large
from service.context import Context
from service.database import db_time, new_id, reading
from service.datasets import service as datasets
from service.datasets.receive import Received
from service.errors import HttpProblem, not_found
from service.failpoints import fp
from service.leases import Claim
from service.principal import Principal
from service.storage import Storage
from service.uploads import repository
from service.uploads.metadata import Checksum, refuse
from service.uploads.receive import Writer, busy, locked_file
from service.uploads.tables import Upload

log = logging.getLogger(__name__)
FOLDER = "uploads"
TRIES = 5


def create(
    context: Context, who: Principal, length: int | None, metadata_header: str, metadata: datasets.DatasetMetadata
) -> Upload:
    """Create an upload without bytes.

    Raises 413 problems for a length beyond the limits, 429 for too many unfinished uploads, 422 for length 0.
    """
    limit = context.settings.max_upload_bytes
    if length is not None and length > limit:
        raise too_large(limit)
    if length == 0:
        raise refuse(
            "Upload-Length", "empty", "must be at least 1; got 0.", "Send a file that is not empty.", status=422
        )
    with context.sessions.begin() as session:
        quota.check_open_uploads(session, context.settings, who.project_id, length or 0)
        quota.check(session, context.settings, who.project_id, length or 0)
        now = db_time(session)
        identifier = new_id("up")
        upload = Upload(
            id=identifier,
            project_id=who.project_id,
            state="uploading",
            length=length,
            received=0,
            metadata_header=metadata_header,
            name=metadata.name,
            kind=metadata.kind,
            target=metadata.target,
            filename=metadata.filename,
            read_options=metadata.read_options,
            storage_key=f"{FOLDER}/{identifier}",
            expires_at=now + timedelta(seconds=context.settings.upload_keep_seconds),
            created_at=now,
            updated_at=now,
        )
        repository.add(session, upload)
    return upload


def find(context: Context, who: Principal, upload_id: str, *, usable: bool = True) -> Upload:
    """Return the project's upload. Raises 404, and with `usable` 410 when it has expired or failed.

    One received in full whose process died before it created the dataset gets its dataset now.
    """
    with reading(context.sessions) as session:
        upload = repository.get(session, who.project_id, upload_id)
        if upload is None:
            raise not_found("upload", upload_id)
        if usable and repository.expired(session, upload):
            raise HttpProblem(
                410, "upload_expired", "The upload expired: its next bytes came too late. Begin a new one."
            )
    if upload.state == "received":
        upload = finish(context.sessions, context.storage, context.doorbell.ring, upload_id) or upload
    if usable and upload.state == "failed":
        raise HttpProblem(
            410, "upload_failed", f"{(upload.error or {}).get('message', 'It failed')}. Begin a new upload."
        )
    return upload


def open_writer(
    context: Context, who: Principal, upload_id: str, offset: int, length: int | None, checksum: Checksum | None
) -> Writer:
    """Return the only writer of the upload, at `offset`. Raises 404, 409 (another offset), 410, 413, 423."""
    find(context, who, upload_id)
    path = context.storage.local_path(f"{FOLDER}/{upload_id}")
    file = locked_file(path)
    if file is None:
        raise busy()
    try:
        with context.sessions.begin() as session:
            upload = repository.locked(session, upload_id)
            if upload is None:
                path.unlink(missing_ok=True)
                raise not_found("upload", upload_id)
            if upload.state != "uploading":
                raise _wrong_offset(upload)
            size = path.stat().st_size
            if size < upload.received:
                log.error("upload %s: the file has %s bytes of %s", upload_id, size, upload.received)
                upload.received = size
            matches = offset == upload.received
            if matches:
                upload.fence += 1
                _set_length(context, session, upload, length)
        # a length that was corrected above must be committed before the refusal
        if not matches:
            raise _wrong_offset(upload)
        with reading(context.sessions) as session:
            limit = quota.room(session, context.settings, upload.project_id, without_upload=upload_id)
        keep = context.settings.upload_keep_seconds
        return Writer(
            context.sessions,
            Claim(upload_id, upload.fence),
            file,
            upload.received,
            upload.length,
            limit,
            keep,
            checksum,
        )
    except BaseException:
        file.close()
        raise


def _set_length(context: Context, session: Session, upload: Upload, length: int | None) -> None:
    """Set the length of an upload that was created without one (`Upload-Defer-Length`)."""
    if length is None or length == upload.length:
        return
    if upload.length is not None or length < upload.received:
        message = f"the upload has {upload.length or upload.received} bytes already."
        raise refuse("Upload-Length", "length_changed", message, "Leave it out.")
    if length > context.settings.max_upload_bytes:
        raise too_large(context.settings.max_upload_bytes)
    more = length - upload.received
    quota.check_open_uploads(session, context.settings, upload.project_id, more, more=0)
    quota.check(session, context.settings, upload.project_id, more)
    upload.length = length


def _wrong_offset(upload: Upload) -> HttpProblem:
    headers = {"Upload-Offset": str(upload.received)}
    if upload.dataset_id:
        headers["Trainkit-Dataset"] = upload.dataset_id
    detail = f"The upload is {upload.state} and has {upload.received} bytes. Continue there (HEAD returns the offset)."
    return HttpProblem(409, "wrong_offset", detail, headers=headers)


def finish(
    sessions: sessionmaker[Session], storage: Storage, ring: Callable[[str], object], upload_id: str
) -> Upload | None:
    """Create the dataset of an upload that was received in full: once, however often and from wherever it is called."""
    for _ in range(TRIES):
        try:
            with sessions.begin() as session:
                upload = repository.locked(session, upload_id)
                if upload is None or upload.state != "received" or upload.sha256 is None:
                    return upload
                _create_dataset(session, storage, upload)
            break
        except IntegrityError:  # another upload of the same name or bytes was faster
            continue
        except FileNotFoundError:
            return _fail_lost(sessions, upload_id)
    else:
        return upload
    fp("upload_finished")
    # the file is left when the same bytes were stored already
    storage.delete(upload.storage_key)
    if upload.dataset_id is not None:
        ring(datasets.QUEUE)
    return upload


def _create_dataset(session: Session, storage: Storage, upload: Upload) -> None:
    part = storage.local_path(upload.storage_key)
    received = Received(part, upload.sha256 or "", upload.received)
    metadata = datasets.DatasetMetadata(upload.name, upload.kind, upload.target, upload.filename, upload.read_options)
    dataset = datasets.admit(session, storage, upload.project_id, received, metadata)
    fp("upload_adopted")
    upload.state, upload.dataset_id = "finished", dataset.id


def _fail_lost(sessions: sessionmaker[Session], upload_id: str) -> Upload | None:
    message, hint = "the upload's file is no longer in storage", "Upload it again."
    log.error("upload %s: %s", upload_id, message)
    with sessions.begin() as session:
        upload = repository.locked(session, upload_id)
        if upload is not None and upload.state == "received":
            upload.state = "failed"
            upload.error = {
                "code": "bytes_lost",
                "layer": "platform",
                "message": message,
                "evidence": {},
                "retryable": True,
                "hint": hint,
            }
    return upload


def terminate(context: Context, who: Principal, upload_id: str) -> None:
    """Delete an upload and its bytes; a dataset that was created from it stays. Raises 404, 423."""
    upload = find(context, who, upload_id, usable=False)
    path = context.storage.local_path(upload.storage_key)
    file = locked_file(path)
    if file is None:
        raise busy()
    with file, context.sessions.begin() as session:
        row = repository.locked(session, upload_id)
        if row is not None:
            repository.delete_row(session, row)
        path.unlink(missing_ok=True)
