"""The append-only event file between the training process and its supervisor.

One event a line: CRC32 of the JSON in eight hex digits, a space, the JSON. Appended events survive the end of
either process and any outage of the database; a line cut short by a crash is detected and not read.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from pathlib import Path
from typing import Any

FSYNC_SECONDS = 0.5
# Rows of a running loss may come hundreds of times a second: fsync those by time, the rest at once.
FREQUENT = frozenset({"metrics", "progress", "phase", "log"})


class SpoolError(RuntimeError):
    """A complete line with a wrong checksum: the file is damaged, so events may be missing."""


class SpoolWriter:
    """Appends events; each is in the file when `write` returns, on the disk at the next fsync."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._synced = time.monotonic()

    def write(self, event: dict[str, Any]) -> None:
        """Append one event. Raises OSError when the disk refuses, TypeError for what JSON cannot hold."""
        body = json.dumps(event, separators=(",", ":")).encode()
        line = b"%08x %b\n" % (zlib.crc32(body), body)
        while line:
            line = line[os.write(self._file, line) :]
        now = time.monotonic()
        if event.get("type") not in FREQUENT or now - self._synced >= FSYNC_SECONDS:
            os.fsync(self._file)
            self._synced = now

    def close(self) -> None:
        """Fsync and close."""
        os.fsync(self._file)
        os.close(self._file)


class SpoolReader:
    """Follows a spool from byte `offset`; the file need not exist yet."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset

    def read(self, limit_bytes: int = 4 << 20) -> list[dict[str, Any]]:
        """Return the next complete events, at most about `limit_bytes` of them; [] when there is nothing new.

        A last line without its newline is left for later. Raises SpoolError for a complete line with a wrong checksum.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                block = file.read(limit_bytes)
                if block and b"\n" not in block:
                    block += file.readline()
        except FileNotFoundError:
            return []
        end = block.rfind(b"\n") + 1
        events = [self._parse(line) for line in block[:end].split(b"\n")[:-1]]
        self.offset += end
        return events

    def size(self) -> int:
        """Bytes that have been written so far."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def _parse(self, line: bytes) -> dict[str, Any]:
        checksum, _, body = line.partition(b" ")
        if len(checksum) != 8 or checksum != b"%08x" % zlib.crc32(body):
            raise SpoolError(f"{self.path}: a damaged line after byte {self.offset}; the disk may be full or failing")
        event: dict[str, Any] = json.loads(body)
        return event
