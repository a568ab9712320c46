"""The pipe of wishes from the supervisor down to the training process: JSON lines, the newest wish holds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

Wish = dict[str, Any]


class ControlSender:
    """The supervisor's end. A wish is sent once; sending the same one again does nothing."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._last: Wish | None = None

    @property
    def last(self) -> Wish | None:
        """The wish in force."""
        return self._last

    def send(self, wish: Wish) -> None:
        """Send a wish such as {"action": "stop", "keep": "best"}; a child that has gone is no error."""
        if wish == self._last:
            return
        self._last = wish
        try:
            os.write(self._descriptor, json.dumps(wish).encode() + b"\n")
        except BrokenPipeError:
            return  # waitpid tells the supervisor how the child ended

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._descriptor)


class Control:
    """The training process's end; `trainkit.fit` asks it once a step, so it costs one non-blocking read."""

    def __init__(self, descriptor: int, beat: Callable[[], None] = lambda: None) -> None:
        os.set_blocking(descriptor, False)
        self.beat = beat
        """Called at every question: a sign of life."""
        self._descriptor = descriptor
        self._rest = b""
        self._wish: Wish | None = None

    def command(self) -> Wish | None:
        """The newest wish, or None. Ends the process when the supervisor has gone: nobody would read its results."""
        self.beat()
        try:
            block = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return self._wish
        if not block:
            os._exit(1)
        *lines, self._rest = (self._rest + block).split(b"\n")
        if lines:
            self._wish = json.loads(lines[-1])
        return self._wish


def control_pipe() -> tuple[int, int]:
    """(read end for the child, write end for the supervisor)."""
    return os.pipe()
