"""A file that is being downloaded: hidden until it is complete, and continued after a cut."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from trainkit_client.errors import BadResponse

CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)", re.ASCII)


class PartialFile:
    """Receives the bytes of a download, and becomes the target when they are complete and as the service hashed them."""

    def __init__(self, target: Path) -> None:
        self.target = target
        handle, path = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
        self._file = os.fdopen(handle, "w+b")
        self._path = Path(path)
        self._etag: str | None = None
        self._expected: int | None = None
        self._digest: str | None = None

    @property
    def is_continuable(self) -> bool:
        """Whether the service can send the rest alone."""
        return self._etag is not None and not self._etag.startswith("W/")

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the next request: what is missing, if the file is still the same."""
        received = self._file.tell()
        if received == 0 or self._etag is None or not self.is_continuable:
            return {"Accept-Encoding": "identity"}
        return {"Accept-Encoding": "identity", "Range": f"bytes={received}-", "If-Range": self._etag}

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Take the head of a response: go on with a part, or begin anew."""
        place = CONTENT_RANGE.fullmatch(headers.get("content-range", "")) if status == 206 else None
        if place is not None and int(place.group(1)) == self._file.tell():
            return
        self._file.seek(0)
        self._file.truncate()
        self._etag = headers.get("etag")
        length = headers.get("content-length", "")
        self._expected = int(length) if length.isdecimal() else None
        self._digest = headers.get("repr-digest")

    def write(self, chunk: bytes) -> None:
        """Append bytes."""
        self._file.write(chunk)

    def finish(self) -> Path:
        """Give the file its name. Raises BadResponse when bytes are missing or wrong."""
        if self._expected is not None and self._file.tell() != self._expected:
            raise BadResponse(f"{self.target.name} has {self._file.tell()} bytes instead of {self._expected}.")
        self._check_digest()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        mask = os.umask(0)
        os.umask(mask)
        self._path.chmod(0o666 & ~mask)  # as any new file: the temporary one was private
        self._path.replace(self.target)
        return self.target

    def _check_digest(self) -> None:
        if not self._digest or not self._digest.startswith("sha-256=:"):
            return
        self._file.seek(0)
        digest = base64.b64encode(hashlib.file_digest(self._file, "sha256").digest()).decode()
        if self._digest != f"sha-256=:{digest}:":
            raise BadResponse(f"{self.target.name} arrived with another hash than the service has: download it again.")

    def discard(self) -> None:
        """Remove what is not complete; nothing after `finish`."""
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


def target_file(path: str | Path, name: str) -> Path:
    """Return the file to write: the path itself, or the last part of a name in a folder."""
    target = Path(path).expanduser()
    return target / name.rpartition("/")[2] if target.is_dir() else target
