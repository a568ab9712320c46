"""Rules of uploads: one writer at a time, the database knows the offset, and the last byte makes the dataset once."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from service import quota
from service.body_limits import too_large
from service.context import Context
from service.database import db_now, new_id, reading
from service.datasets import service as datasets
from service.datasets.receive import Received
from service.errors import Problem, not_found
from service.failpoints import fp
from service.keys.service import Principal
from service.storage import Storage
from service.uploads import repository
from service.uploads.metadata import Checksum, refuse
from service.uploads.receive import Writer, busy, locked_file
from service.uploads.tables import Upload

log = logging.getLogger(__name__)
FOLDER = "uploads"
TRIES = 5


def create(context: Context, who: Principal, length: int | None, said: str, wish: datasets.Wish) -> Upload:
    """A new upload without bytes. 413 problems when the length is beyond the limits, 422 for nothing at all."""
    limit = context.settings.max_upload_bytes
    if length is not None and length > limit:
        raise too_large(limit)
    if length == 0:
        raise refuse("Upload-Length", "empty", "no dataset is empty.", "Send a file that has bytes.", status=422)
    with context.sessions.begin() as session:
        quota.check(session, context.settings, who.project_id, length or 0)
        now = session.scalar(select(db_now()))
        until = session.scalar(select(db_now(plus=context.settings.upload_keep_seconds)))
        assert now is not None
        assert until is not None
        identifier = new_id("up")
        upload = Upload(
            id=identifier,
            project_id=who.project_id,
            state="uploading",
            length=length,
            received=0,
            metadata_header=said,
            name=wish.name,
            kind=wish.kind,
            target=wish.target,
            filename=wish.filename,
            read_options=wish.read_options,
            storage_key=f"{FOLDER}/{identifier}",
            expires_at=until,
            created_at=now,
            updated_at=now,
        )
        session.add(upload)
    return upload


def find(context: Context, who: Principal, upload_id: str, *, usable: bool = True) -> Upload:
    """The project's upload. Raises 404, and where it must be `usable` 410 when it has expired or failed.

    One whose bytes are all there, but whose process died before it made the dataset, gets its dataset now.
    """
    with reading(context.sessions) as session:
        upload = repository.get(session, who.project_id, upload_id)
        if upload is None:
            raise not_found("upload", upload_id)
        if usable and repository.expired(session, upload):
            raise Problem(410, "upload_expired", "The upload waited too long for its next bytes. Begin a new one.")
    if upload.state == "received":
        upload = finish(context.sessions, context.storage, context.doorbell.ring, upload_id) or upload
    if usable and upload.state == "failed":
        raise Problem(410, "upload_failed", f"{(upload.error or {}).get('message', 'It failed')}. Begin a new upload.")
    return upload


def open_writer(
    context: Context, who: Principal, upload_id: str, offset: int, length: int | None, checksum: Checksum | None
) -> Writer:
    """Become the one who writes at `offset`. Raises 404, 409 (another offset), 410, 413, 423."""
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
            right = offset == upload.received
            if right:
                upload.fence += 1
                _set_length(context, session, upload, length)
        # a length that was too short to keep must stay: only now may the answer be no
        if not right:
            raise _wrong_offset(upload)
        with reading(context.sessions) as session:
            limit = quota.room(session, context.settings, upload.project_id, without_upload=upload_id)
        keep = context.settings.upload_keep_seconds
        return Writer(
            context.sessions, upload_id, file, upload.fence, upload.received, upload.length, limit, keep, checksum
        )
    except BaseException:
        file.close()
        raise


def _set_length(context: Context, session: Session, upload: Upload, length: int | None) -> None:
    """The length of an upload that was created without (`Upload-Defer-Length`)."""
    if length is None or length == upload.length:
        return
    if upload.length is not None or length < upload.received:
        message = f"the upload has {upload.length or upload.received} bytes already."
        raise refuse("Upload-Length", "length_changed", message, "Leave it out.")
    if length > context.settings.max_upload_bytes:
        raise too_large(context.settings.max_upload_bytes)
    quota.check(session, context.settings, upload.project_id, length - upload.received)
    upload.length = length


def _wrong_offset(upload: Upload) -> Problem:
    headers = {"Upload-Offset": str(upload.received)}
    if upload.dataset_id:
        headers["Trainkit-Dataset"] = upload.dataset_id
    detail = f"The upload is {upload.state} and has {upload.received} bytes. Go on there (HEAD tells the offset)."
    return Problem(409, "wrong_offset", detail, headers=headers)


def finish(
    sessions: sessionmaker[Session], storage: Storage, ring: Callable[[str], object], upload_id: str
) -> Upload | None:
    """Make the dataset of an upload that was received whole: once, however often and from wherever it is called."""
    for _ in range(TRIES):
        try:
            with sessions.begin() as session:
                upload = repository.locked(session, upload_id)
                if upload is None or upload.state != "received" or upload.sha256 is None:
                    return upload
                _make_dataset(session, storage, upload)
            break
        except IntegrityError:  # another upload of the same name or bytes was quicker: look again
            continue
        except FileNotFoundError:
            return _lost(sessions, upload_id)
    else:
        return upload
    fp("upload_finished")
    # left over when the same bytes were there already
    storage.delete(upload.storage_key)
    if upload.dataset_id is not None:
        ring(datasets.QUEUE)
    return upload


def _make_dataset(session: Session, storage: Storage, upload: Upload) -> None:
    part = storage.local_path(upload.storage_key)
    received = Received(part, upload.sha256 or "", upload.received)
    wish = datasets.Wish(upload.name, upload.kind, upload.target, upload.filename, upload.read_options)
    dataset = datasets.admit(session, storage, upload.project_id, received, wish)
    fp("upload_adopted")
    upload.state, upload.dataset_id = "finished", dataset.id


def _lost(sessions: sessionmaker[Session], upload_id: str) -> Upload | None:
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
                "retryable": True,
                "hint": hint,
            }
    return upload


def terminate(context: Context, who: Principal, upload_id: str) -> None:
    """Forget an upload and its bytes; a dataset that it has become stays. Raises 404, 423."""
    upload = find(context, who, upload_id, usable=False)
    path = context.storage.local_path(upload.storage_key)
    file = locked_file(path)
    if file is None:
        raise busy()
    with file, context.sessions.begin() as session:
        row = repository.locked(session, upload_id)
        if row is not None:
            session.delete(row)
            session.flush()
        path.unlink(missing_ok=True)
