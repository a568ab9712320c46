"""Report the error of a training process through shared memory, for a disk that is full or broken."""

from __future__ import annotations

import json
import mmap
from typing import Any

SIZE = 64 << 10


class CrashChannel:
    """One error in memory that supervisor and training process share. The first one written stays."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SIZE)

    def write(self, error: dict[str, Any]) -> None:
        """Write the job's error, without its evidence where that is too long. Called by the training process."""
        if self._memory[0]:
            return
        body = json.dumps(error).encode()
        if len(body) > SIZE:
            body = json.dumps({**error, "message": error["message"][:1000], "evidence": {}}).encode()
        self._memory[: len(body)] = body

    def read(self) -> dict[str, Any] | None:
        """Return the error; None when none was written, or not completely."""
        try:
            error: dict[str, Any] = json.loads(self._memory[:].rstrip(b"\0"))
        except ValueError:
            return None
        return error
