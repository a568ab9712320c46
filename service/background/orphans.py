"""Files of jobs that no row names: a process died between storing the file and writing the row, or the reverse.

Only jobs that were deleted or have ended are examined: nothing is registered for those any more, and a running job's
files are its worker's. Young files stay, because a new job's first checkpoint is stored before its row is written.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from service.background import repository
from service.background.garbage_collection import BATCH, GRACE_SECONDS, age
from service.database import reading
from service.storage import KEY, Storage

log = logging.getLogger(__name__)


def remove_orphans(sessions: sessionmaker[Session], storage: Storage, grace_seconds: float = GRACE_SECONDS) -> None:
    """Delete files of checkpoints, artifacts and models that are older than `grace_seconds` and that no row names."""
    for folder in repository.STORAGE_KEYS:
        root = storage.root / folder
        old = [path for path in _stored(root, whole_folders=folder == "models") if age(path) > grace_seconds]
        for start in range(0, len(old), BATCH):
            _remove_unnamed(sessions, storage, folder, old[start : start + BATCH])
        _remove_empty_folders(sessions, root, grace_seconds)


def _stored(root: Path, *, whole_folders: bool) -> Iterator[Path]:
    """Yield the files at any depth of each job's folder; for models the folders in it."""
    for job in sorted(root.glob("job_*")):
        yield from job.iterdir() if whole_folders else (path for path in job.rglob("*") if path.is_file())


def _remove_unnamed(sessions: sessionmaker[Session], storage: Storage, folder: str, paths: list[Path]) -> None:
    job_of = {(key := path.relative_to(storage.root).as_posix()): key.split("/")[1] for path in paths}
    with reading(sessions) as session:
        jobs = set(job_of.values())
        active = repository.active_jobs(session, jobs)
        known = repository.known_keys(session, folder, jobs, job_of)
    for key, job_id in job_of.items():
        if key not in known and job_id not in active and KEY.fullmatch(key):
            storage.delete(key)
            log.info("deleted %s: no row names it", key)


def _remove_empty_folders(sessions: sessionmaker[Session], root: Path, grace_seconds: float) -> None:
    old = [job for job in sorted(root.glob("job_*")) if age(job) > grace_seconds]
    for start in range(0, len(old), BATCH):
        batch = old[start : start + BATCH]
        with reading(sessions) as session:
            active = repository.active_jobs(session, {job.name for job in batch})
        for job in batch:
            if job.name in active:
                continue
            inner = sorted((path for path in job.rglob("*") if path.is_dir()), reverse=True)
            for folder in [*inner, job] if root.name != "models" else [job]:
                with contextlib.suppress(OSError):  # not empty
                    folder.rmdir()
