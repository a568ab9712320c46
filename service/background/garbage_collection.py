"""Garbage collection of storage: expired uploads, bytes without a dataset, prepared data without a row.

Each decision is made in one transaction that locks the row which a concurrent upload of the same bytes needs, so it is
safe at any moment. Young files stay all the same.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from service.datasets import repository as datasets
from service.leases import Claim
from service.storage import Storage
from service.uploads import repository as uploads
from service.uploads.receive import locked_file
from service.uploads.service import FOLDER, finish

log = logging.getLogger(__name__)
GRACE_SECONDS = 3600.0
"""Younger files stay: an intake or an upload may be about to write the row that names them."""
PART_SECONDS = 86400.0
SHA256 = re.compile(r"[0-9a-f]{64}")
BATCH = 500


def finish_uploads(sessions: sessionmaker[Session], storage: Storage, ring: Callable[[str], object]) -> None:
    """Create the datasets of uploads whose process died after their last byte, and delete expired uploads."""
    with sessions() as session:
        waiting = uploads.waiting_for_dataset(session)
    for upload_id in waiting:
        finish(sessions, storage, ring, upload_id)
    with sessions() as session:
        if not uploads.any_expired(session):
            return
    with sessions.begin() as session:
        expired = uploads.delete_expired(session)
    for upload_id in expired:
        _delete_unlocked(storage.local_path(f"{FOLDER}/{upload_id}"))


def collect_garbage(sessions: sessionmaker[Session], storage: Storage, grace_seconds: float = GRACE_SECONDS) -> None:
    """Delete everything in storage that no row of uploads or datasets needs and that is older than `grace_seconds`."""
    _collect_upload_files(sessions, storage, grace_seconds)
    _collect_unreferenced_blobs(sessions, storage, grace_seconds)
    _collect_unknown_blobs(sessions, storage, grace_seconds)
    _collect_prepared(sessions, storage, grace_seconds)
    _measure_prepared(sessions, storage)
    storage.sweep_parts(PART_SECONDS)


def _measure_prepared(sessions: sessionmaker[Session], storage: Storage) -> None:
    """Count the bytes of prepared forms from before they counted against a quota."""
    with sessions() as session:
        found = datasets.unmeasured(session, BATCH)
    for dataset_id, key in found:
        with contextlib.suppress(OSError):  # deleted meanwhile
            size = storage.size(key)
            with sessions.begin() as session:
                datasets.set_prepared_bytes(session, dataset_id, key, size)


def _delete_unlocked(path: Path) -> None:
    if not path.exists():
        return
    file = locked_file(path)
    if file is not None:  # else a request writes to it, finds no row, and deletes it
        with file:
            path.unlink(missing_ok=True)


def _collect_upload_files(sessions: sessionmaker[Session], storage: Storage, grace: float) -> None:
    """Delete files of uploads whose row was deleted by a process that died before it deleted the file."""
    for batch in _old_batches((storage.root / FOLDER).glob("up_*"), grace):
        with sessions() as session:
            known = uploads.unfinished(session, [path.name for path in batch])
        for path in batch:
            if path.name not in known:
                _delete_unlocked(path)


def _collect_unreferenced_blobs(sessions: sessionmaker[Session], storage: Storage, grace: float) -> None:
    """Delete blobs that no dataset refers to, row and file."""
    with sessions() as session:
        unreferenced = datasets.unreferenced_blobs(session, grace, BATCH)
    for sha256 in unreferenced:
        with sessions.begin() as session:
            blob = datasets.locked_blob(session, sha256)
            # an upload of the same bytes waits for the lock, and then stores them anew
            if blob is not None and not datasets.is_referenced(session, sha256):
                datasets.delete_blob(session, blob)
                storage.delete(blob.storage_key)
                log.info("deleted %s: no dataset refers to it", blob.storage_key)


def _collect_unknown_blobs(sessions: sessionmaker[Session], storage: Storage, grace: float) -> None:
    """Delete files in `blobs/` without a row: a process died after the rename and before the commit."""
    files = (path for path in (storage.root / "blobs").glob("*/*") if SHA256.fullmatch(path.name))
    for batch in _old_batches(files, grace):
        with sessions() as session:
            known = datasets.known_blobs(session, [path.name for path in batch])
        for path in batch:
            if path.name not in known:
                _delete_unknown_blob(sessions, storage, path)


def _delete_unknown_blob(sessions: sessionmaker[Session], storage: Storage, path: Path) -> None:
    key = f"blobs/{path.parent.name}/{path.name}"
    # a temporary row makes an upload of the same bytes wait while the file is deleted; the insert fails if it was first
    with contextlib.suppress(IntegrityError), sessions.begin() as session:
        placeholder = datasets.add_blob(session, path.name, 0, key)
        if not uploads.has_received(session, path.name):
            storage.delete(key)
            log.info("deleted %s: no row names it", key)
        datasets.delete_blob(session, placeholder)


def _collect_prepared(sessions: sessionmaker[Session], storage: Storage, grace: float) -> None:
    """Delete prepared folders of deleted datasets, and of checks that another worker has done instead."""
    for folder in sorted((storage.root / "prepared").glob("*/*")):
        dataset_id, fence = folder.parent.name, folder.name
        if not dataset_id.startswith("ds_") or not fence.isdigit() or age(folder) <= grace:
            continue
        key = f"prepared/{dataset_id}/{fence}"
        with sessions() as session:
            needed = datasets.needs_prepared(session, Claim(dataset_id, int(fence)), key)
        if not needed:
            storage.delete(key)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()
            log.info("deleted %s: no dataset needs it", key)


def _old_batches(paths: Iterator[Path], grace: float) -> Iterator[list[Path]]:
    old = [path for path in sorted(paths) if age(path) > grace]
    return (old[start : start + BATCH] for start in range(0, len(old), BATCH))


def age(path: Path) -> float:
    """Return the seconds since the file was last changed in any way; 0 when it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return 0.0
    return time.time() - max(status.st_mtime, status.st_ctime)
