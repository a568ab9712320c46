"""Why a training process fails, told through memory: a full or broken disk must not keep that from its supervisor."""

from __future__ import annotations

import json
import mmap
from typing import Any

SIZE = 64 << 10


class LastWords:
    """One error in memory that supervisor and training process share. The first word stays."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SIZE)

    def say(self, error: dict[str, Any]) -> None:
        """In the training process: the job's `error`, without its evidence where that is too long."""
        if self._memory[0]:
            return
        body = json.dumps(error).encode()
        if len(body) > SIZE:
            body = json.dumps({**error, "message": error["message"][:1000], "evidence": {}}).encode()
        self._memory[: len(body)] = body

    def read(self) -> dict[str, Any] | None:
        """What was said; None when it died in the middle of a word, or never spoke."""
        try:
            error: dict[str, Any] = json.loads(self._memory[:].rstrip(b"\0"))
        except ValueError:
            return None
        return error
