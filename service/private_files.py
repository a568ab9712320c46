"""Files that only the service's user reads: those it creates from now on, and those that earlier versions left open."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from sqlalchemy import make_url

from service.settings import Settings
from service.storage import Storage


def keep_files_private(settings: Settings) -> None:
    """Set the umask of this process and of what it starts, and close database and folders to other users.

    A group keeps what the operator gave it on the folders, for example for backups. Called once, when a process starts.
    """
    os.umask(0o077)
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        for suffix in ("", "-wal", "-shm", "-journal"):
            _take_away(Path(url.database + suffix), 0o077)
    for folder in (settings.scratch, Storage(settings.storage_url).root):
        _take_away(folder, 0o007)


def _take_away(path: Path, bits: int) -> None:
    with contextlib.suppress(OSError):  # not there yet, or another user's, who decides
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & bits:
            path.chmod(mode & ~bits)
