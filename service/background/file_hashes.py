"""Hash the files in storage whose rows have no hash yet: those that were stored by an earlier version."""

from __future__ import annotations

import logging
import time

from sqlalchemy.orm import Session, sessionmaker

from service.content_digests import sha256_of_file
from service.database import reading
from service.jobs import repository as jobs
from service.models import repository as models
from service.models.file_digests import digests_of
from service.storage import Storage

log = logging.getLogger(__name__)
BATCH = 200
MOST_SECONDS = 3.0
"""Of one turn: other housekeeping waits for it. One large file may take longer."""


def hash_stored_files(sessions: sessionmaker[Session], storage: Storage) -> None:
    """Write the hashes of artifacts and models that have none, for some seconds at most. No transaction is open meanwhile."""
    end = time.monotonic() + MOST_SECONDS
    after: tuple[str, str] | None = None
    while True:
        with reading(sessions) as session:
            artifacts = jobs.unhashed_artifacts(session, after, BATCH)
        for artifact in artifacts:
            after = artifact.job_id, artifact.name
            try:
                sha256 = sha256_of_file(storage.local_path(artifact.storage_key))
            except FileNotFoundError:  # lists leave it out; looked for once, not in every turn
                sha256 = ""
            except OSError:
                continue
            with sessions.begin() as session:
                jobs.set_artifact_hash(session, artifact.job_id, artifact.name, artifact.storage_key, sha256)
            if time.monotonic() > end:
                return
        if len(artifacts) < BATCH:
            break
    while keys := _unhashed_models(sessions):
        for key in keys:
            found = digests_of(storage.local_path(key))
            with sessions.begin() as session:
                models.set_digests(session, key, found)
            if time.monotonic() > end:
                return


def _unhashed_models(sessions: sessionmaker[Session]) -> list[str]:
    with reading(sessions) as session:
        return models.unhashed(session, BATCH)
