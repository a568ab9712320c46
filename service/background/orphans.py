"""Files of jobs that no row names any more: a process died between the row and the file.

Only jobs that are gone or have ended are looked at: nothing is ever registered for those again, and a running job's
files are its worker's. Young files are left alone, for a new job's first checkpoint lies there before its row does.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute, Session, sessionmaker

from service.background.garbage_collection import BATCH, GRACE_SECONDS, age
from service.database import reading
from service.jobs.states import ENDED
from service.jobs.tables import Artifact, Checkpoint, Job
from service.models.tables import Model
from service.storage import KEY, Storage

log = logging.getLogger(__name__)
KEYS: dict[str, InstrumentedAttribute[Any]] = {
    "checkpoints": Checkpoint.storage_key,
    "artifacts": Artifact.storage_key,
    "models": Model.storage_key,
}


def sweep_strays(sessions: sessionmaker[Session], storage: Storage, grace_seconds: float = GRACE_SECONDS) -> None:
    """Look through the folders of all jobs. For every few minutes."""
    for folder, column in KEYS.items():
        root = storage.root / folder
        old = [path for path in _stored(root, whole_folders=folder == "models") if age(path) > grace_seconds]
        for start in range(0, len(old), BATCH):
            _sweep(sessions, storage, column, old[start : start + BATCH])
        _empty_folders(sessions, root, grace_seconds)


def _stored(root: Path, *, whole_folders: bool) -> Iterator[Path]:
    """A job's things: files at any depth of its folder, or for models the folders in it."""
    for job in sorted(root.glob("job_*")):
        yield from job.iterdir() if whole_folders else (path for path in job.rglob("*") if path.is_file())


def _sweep(
    sessions: sessionmaker[Session], storage: Storage, column: InstrumentedAttribute[Any], paths: list[Path]
) -> None:
    keys = {path.relative_to(storage.root).as_posix(): path for path in paths}
    with reading(sessions) as session:
        busy = _active(session, {key.split("/")[1] for key in keys})
        named = set(session.scalars(select(column).where(column.in_(keys))))
    for key in keys:
        if key not in named and key.split("/")[1] not in busy and KEY.fullmatch(key):
            storage.delete(key)
            log.info("removed %s: no row names it", key)


def _active(session: Session, job_ids: set[str]) -> set[str]:
    """Those of the jobs that have not ended."""
    return set(session.scalars(select(Job.id).where(Job.id.in_(job_ids), Job.state.not_in(ENDED))))


def _empty_folders(sessions: sessionmaker[Session], root: Path, grace_seconds: float) -> None:
    old = [job for job in sorted(root.glob("job_*")) if age(job) > grace_seconds]
    for start in range(0, len(old), BATCH):
        batch = old[start : start + BATCH]
        with reading(sessions) as session:
            busy = _active(session, {job.name for job in batch})
        for job in batch:
            if job.name in busy:
                continue
            inner = sorted((path for path in job.rglob("*") if path.is_dir()), reverse=True)
            for folder in [*inner, job] if root.name != "models" else [job]:
                with contextlib.suppress(OSError):  # not empty
                    folder.rmdir()
