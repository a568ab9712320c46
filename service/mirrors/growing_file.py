"""Append to a file below the operator's folder, at the position that was noted last."""

from __future__ import annotations

import os
from pathlib import Path

from service.mirrors.rest_client import MirrorError


def append(folder: Path | None, name: str, size: int, body: bytes) -> int:
    """Cut the file to `size` bytes, append `body`, and return the new size. Raises MirrorError.

    What was written and not noted is cut off, so that nothing is there twice.
    """
    if folder is None:
        raise MirrorError("nothing was written: TRAINKIT_MIRROR_FOLDER is not set")
    try:
        return _append(folder / name, size, body)
    except OSError as error:
        raise MirrorError(f"the file cannot be written: {error.strerror or type(error).__name__}") from None


def _append(path: Path, size: int, body: bytes) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "r+b") as file:
        if os.fstat(file.fileno()).st_size < size:
            what = (
                "the file is shorter than what was written to it; `retry` writes it anew. All workers need one folder."
            )
            raise MirrorError(what, status=400, final=True)
        file.truncate(size)
        file.seek(size)
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    return size + len(body)
