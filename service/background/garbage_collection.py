"""What nobody needs any more is removed: expired uploads, bytes without a dataset, prepared data without its row.

Each decision is made in one transaction that holds the row which a concurrent upload of the same bytes would need, so
it is safe at any moment; young files are left alone all the same. Safe to run twice, and from several hosts.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from service.database import db_now
from service.datasets import repository as datasets
from service.datasets.tables import Blob, Dataset
from service.storage import Storage
from service.uploads import repository as uploads
from service.uploads.receive import locked_file
from service.uploads.service import FOLDER, finish

log = logging.getLogger(__name__)
GRACE_SECONDS = 3600.0
"""Younger files are left alone: an intake or an upload may be about to name them."""
PART_SECONDS = 86400.0
SHA = re.compile(r"[0-9a-f]{64}")
BATCH = 500


def tend_uploads(sessions: sessionmaker[Session], storage: Storage, ring: Callable[[str], object]) -> None:
    """Make datasets of uploads whose process died at the last moment, and forget the expired ones. Cheap."""
    with sessions() as session:
        waiting = uploads.waiting_for_dataset(session)
    for upload_id in waiting:
        finish(sessions, storage, ring, upload_id)
    with sessions() as session:
        if not uploads.any_expired(session):
            return
    with sessions.begin() as session:
        gone = uploads.remove_expired(session)
    for upload_id in gone:
        _remove_upload(storage.local_path(f"{FOLDER}/{upload_id}"))


def collect(sessions: sessionmaker[Session], storage: Storage, grace_seconds: float = GRACE_SECONDS) -> None:
    """Look through all of storage for what no row needs. For every few minutes."""
    _partial_uploads(sessions, storage, grace_seconds)
    _unreferenced_blobs(sessions, storage, grace_seconds)
    _nameless_bytes(sessions, storage, grace_seconds)
    _prepared(sessions, storage, grace_seconds)
    storage.sweep_parts(PART_SECONDS)


def _remove_upload(path: Path) -> None:
    if not path.exists():
        return
    file = locked_file(path)
    if file is not None:  # else someone writes, finds no row, and removes it
        with file:
            path.unlink(missing_ok=True)


def _partial_uploads(sessions: sessionmaker[Session], storage: Storage, grace: float) -> None:
    """Files whose upload's row is gone: the process died between the two."""
    old = [path for path in (storage.root / FOLDER).glob("up_*") if age(path) > grace]
    for start in range(0, len(old), BATCH):
        batch = old[start : start + BATCH]
        with sessions() as session:
            known = uploads.open_ones(session, [path.name for path in batch])
        for path in batch:
            if path.name not in known:
                _remove_upload(path)


def _unreferenced_blobs(sessions: sessionmaker[Session], storage: Storage, grace: float) -> None:
    """Blobs that no dataset names."""
    with sessions() as session:
        before = session.scalar(select(db_now(plus=-grace))) or datetime.now(UTC)
        named = select(Dataset.id).where(Dataset.blob_sha256 == Blob.sha256).exists()
        doomed = session.scalars(select(Blob.sha256).where(~named, Blob.created_at < before).limit(BATCH)).all()
    for sha256 in doomed:
        with sessions.begin() as session:
            blob = datasets.locked_blob(session, sha256)
            # whoever uploads the same bytes now waits for the lock, and then stores them anew
            if blob is not None and not datasets.named_by_any(session, sha256):
                session.delete(blob)
                session.flush()
                storage.delete(blob.storage_key)
                log.info("removed %s: no dataset has these bytes", blob.storage_key)


def _nameless_bytes(sessions: sessionmaker[Session], storage: Storage, grace: float) -> None:
    """Files in `blobs/` that no row knows: a process died after the rename and before the commit."""
    old = [path for path in _files(storage.root / "blobs", 2) if SHA.fullmatch(path.name) and age(path) > grace]
    for start in range(0, len(old), BATCH):
        batch = old[start : start + BATCH]
        with sessions() as session:
            known = set(session.scalars(select(Blob.sha256).where(Blob.sha256.in_([path.name for path in batch]))))
        for path in batch:
            if path.name not in known:
                _remove_nameless(sessions, storage, path)


def _remove_nameless(sessions: sessionmaker[Session], storage: Storage, path: Path) -> None:
    key = f"blobs/{path.parent.name}/{path.name}"
    # a row of its own keeps an upload of the same bytes waiting while the file goes, or fails when that was quicker
    with contextlib.suppress(IntegrityError), sessions.begin() as session:
        now = session.scalar(select(db_now()))
        holding = Blob(sha256=path.name, bytes=0, storage_key=key, created_at=now)
        session.add(holding)
        session.flush()
        if not uploads.waits_with(session, path.name):
            storage.delete(key)
            log.info("removed %s: no row knows it", key)
        session.delete(holding)


def _prepared(sessions: sessionmaker[Session], storage: Storage, grace: float) -> None:
    """Prepared folders of deleted datasets, and of checks that another worker has done instead."""
    for folder in _files(storage.root / "prepared", 2):
        dataset_id, fence = folder.parent.name, folder.name
        if not dataset_id.startswith("ds_") or not fence.isdigit() or age(folder) <= grace:
            continue
        with sessions() as session:
            row = session.execute(
                select(Dataset.state, Dataset.fence, Dataset.prepared_key).where(Dataset.id == dataset_id)
            ).one_or_none()
        key = f"prepared/{dataset_id}/{fence}"
        needed = row is not None and (
            row.prepared_key == key or (row.state == "validating" and row.fence == int(fence))
        )
        if not needed:
            storage.delete(key)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()
            log.info("removed %s: no dataset needs it", key)


def _files(root: Path, depth: int) -> Iterator[Path]:
    return iter(sorted(root.glob("/".join("*" * depth))))


def age(path: Path) -> float:
    """Seconds since the file was last touched in any way; 0 when it is gone."""
    try:
        status = path.stat()
    except OSError:
        return 0.0
    return time.time() - max(status.st_mtime, status.st_ctime)
