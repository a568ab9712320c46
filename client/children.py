"""The processes that `trainkit up` keeps alive: apart from the terminal, restarted with back-off, stopped in order."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from trainkit.processes import die_with_parent

KEPT_LOGS = 3
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0
# A child that ran this long was well: the next crash starts the back-off anew.
WELL_SECONDS = 60.0


class Child:
    """One part: its command, its log, its process."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self.command = command
        self.environment = environment
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.restarts = 0
        self._started = 0.0
        self._backoff = FIRST_BACKOFF_SECONDS
        self._due: float | None = None

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C in the terminal reaches us alone."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=partial(
                    die_with_parent, os.getpid()
                ),  # no threads here, so nothing can hold a lock across the fork
            )
        self._started = time.monotonic()
        self._due = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def tend(self) -> str | None:
        """Restart it when it has crashed and its back-off is over; what to tell people, or None."""
        now = time.monotonic()
        if self.running:
            if now - self._started > WELL_SECONDS:
                self._backoff = FIRST_BACKOFF_SECONDS
            return None
        if self._due is None:
            self._due = now + self._backoff
            pause, self._backoff = self._backoff, min(2 * self._backoff, LONGEST_BACKOFF_SECONDS)
            return f"{self.name} ended ({ending(self.process)}); starting it again in {pause:g} s. Its log: {self.log}"
        if now >= self._due:
            self.restarts += 1
            self.start()
        return None

    def signal(self, number: int) -> None:
        """Signal the process; one that has gone is no error."""
        if self.running and self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to its whole session."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def last_lines(self, count: int = 12) -> str:
        """The end of its log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 16384))
                return "\n".join(file.read().decode(errors="replace").splitlines()[-count:])
        except OSError:
            return ""


def ending(process: subprocess.Popen[bytes] | None) -> str:
    """`exit code 1`, `killed by SIGKILL`."""
    code = process.returncode if process is not None else None
    if code is None or code >= 0:
        return f"exit code {code}"
    return f"killed by {signal.Signals(-code).name}"


def wait_all(children: Iterable[Child], seconds: float) -> bool:
    """Wait until all have gone, at most `seconds`; whether they have."""
    deadline = time.monotonic() + seconds
    waiting = list(children)
    while any(child.running for child in waiting):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def rotate(log: Path) -> None:
    """name.log becomes name.log.1, that one name.log.2; older ones go."""
    if not log.exists() or log.stat().st_size == 0:
        return
    for number in range(KEPT_LOGS - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    log.replace(log.with_name(f"{log.name}.1"))
