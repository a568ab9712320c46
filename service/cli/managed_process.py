"""A process of `trainkit up`: detached from the terminal, restarted with back-off."""

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
MAX_BACKOFF_SECONDS = 30.0
# After this time a crash starts the back-off anew.
HEALTHY_SECONDS = 60.0


class ManagedProcess:
    """One part of `trainkit up`: its command, its log, its process."""

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
        """Start it in a session of its own, so that Ctrl-C in the terminal reaches only the parent."""
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

    def restart_if_due(self) -> str | None:
        """Restart it when it has ended and its back-off is over. Returns a message for the terminal, or None."""
        now = time.monotonic()
        if self.running:
            if now - self._started > HEALTHY_SECONDS:
                self._backoff = FIRST_BACKOFF_SECONDS
            return None
        if self._due is None:
            self._due = now + self._backoff
            pause, self._backoff = self._backoff, min(2 * self._backoff, MAX_BACKOFF_SECONDS)
            return f"{self.name} ended ({describe_exit(self.process)}); starting it again in {pause:g} s. Its log: {self.log}"
        if now >= self._due:
            self.restarts += 1
            self.start()
        return None

    def signal(self, number: int) -> None:
        """Signal the process; one that has ended is no error."""
        if self.running and self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to its whole session."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def last_lines(self, count: int = 12) -> str:
        """Return the end of its log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 16384))
                return "\n".join(file.read().decode(errors="replace").splitlines()[-count:])
        except OSError:
            return ""


def describe_exit(process: subprocess.Popen[bytes] | None) -> str:
    """Describe how a process ended: `exit code 1`, `killed by SIGKILL`."""
    code = process.returncode if process is not None else None
    if code is None or code >= 0:
        return f"exit code {code}"
    return f"killed by {signal.Signals(-code).name}"


def wait_all(children: Iterable[ManagedProcess], seconds: float) -> bool:
    """Wait until all have ended, at most `seconds`. Returns whether they have."""
    deadline = time.monotonic() + seconds
    waiting = list(children)
    while any(child.running for child in waiting):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def rotate(log: Path) -> None:
    """Rename name.log to name.log.1, that one to name.log.2, and so on; the oldest is removed."""
    if not log.exists() or log.stat().st_size == 0:
        return
    for number in range(KEPT_LOGS - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    log.replace(log.with_name(f"{log.name}.1"))
