"""The addresses of uploads that are under way, so that another process goes on where one was ended."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path

from trainkit_client.config import Connection, state_folder

KEPT_SECONDS = 14 * 86400
"""The service removes an unfinished upload before that."""


class UploadRecord:
    """Where the address of one upload is kept: by service, project, bytes, and how they are to be read.

    A folder that cannot be written to is no error: the upload then begins anew after a restart.
    """

    def __init__(self, connection: Connection, sha256: str, metadata: str) -> None:
        parts = [connection.url, connection.project or "", sha256, metadata]
        name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        self.path = state_folder() / "uploads" / f"{name}.json"

    def load(self) -> str | None:
        """Return the path of the upload at the service; None where none is known."""
        try:
            location = json.loads(self.path.read_text(encoding="utf-8"))["location"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return location if isinstance(location, str) and location.startswith("/v1/uploads/") else None

    def store(self, location: str) -> None:
        """Keep the path of the upload, and drop what is too old to be of use."""
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".", suffix=".tmp")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"location": location}, file)
            Path(temporary).replace(self.path)
            oldest = time.time() - KEPT_SECONDS
            for other in self.path.parent.iterdir():
                if other.stat().st_mtime < oldest:
                    other.unlink(missing_ok=True)

    def forget(self) -> None:
        """Drop the record of an upload that is finished or gone."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
