"""The pipe of commands from the supervisor to its training process: JSON lines, the newest command is in force."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

Command = dict[str, Any]
"""Such as {"action": "stop", "keep": "best"}; `trainkit.fit.control.Command` lists the actions."""


class ControlSender:
    """The supervisor's end. A command is sent once; sending the same one again does nothing."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._last: Command | None = None

    @property
    def last(self) -> Command | None:
        """The command in force."""
        return self._last

    def send(self, command: Command) -> None:
        """Send a command; a process that has ended is no error."""
        if command == self._last:
            return
        self._last = command
        try:
            os.write(self._descriptor, json.dumps(command).encode() + b"\n")
        except BrokenPipeError:
            return  # the supervisor learns from waitpid how it ended

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._descriptor)


class ControlReceiver:
    """The training process's end, a `trainkit.fit.Control`: read once a step, so it costs one non-blocking read."""

    def __init__(self, descriptor: int, beat: Callable[[], None] = lambda: None) -> None:
        os.set_blocking(descriptor, False)
        self.beat = beat
        """Called at every read: a sign of life for the watchdog."""
        self._descriptor = descriptor
        self._rest = b""
        self._command: Command | None = None

    def command(self) -> Command | None:
        """Return the newest command, or None. Ends the process when the supervisor has ended: nobody reads its results."""
        self.beat()
        try:
            block = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return self._command
        if not block:
            os._exit(1)
        *lines, self._rest = (self._rest + block).split(b"\n")
        if lines:
            self._command = json.loads(lines[-1])
        return self._command


def control_pipe() -> tuple[int, int]:
    """(read end for the child, write end for the supervisor)."""
    return os.pipe()
