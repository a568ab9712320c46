"""Watch whether a training process makes progress and keeps within its memory limit."""

from __future__ import annotations

import mmap
import signal
import struct
import time
from pathlib import Path
from typing import Any

from trainkit.spec.failures import failure
from worker.exit_errors import MIB, last_lines
from worker.metrics import RESIDENT_BYTES
from worker.processes import ForkedProcess

CHECK_SECONDS = 0.25
DUMP_SECONDS = 0.5
STATES = {
    "T": "stopped (SIGSTOP)",
    "t": "stopped by a debugger",
    "D": "waiting for a disk",
    "R": "running",
    "S": "waiting",
}


class Pulse:
    """A counter in shared memory: the training process raises it, the supervisor reads it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)
        self._count = 0

    def beat(self) -> None:
        """Raise the counter. Called by the training process at every step and event."""
        self._count += 1
        struct.pack_into("Q", self._memory, 0, self._count)

    def read(self) -> int:
        """Return the counter."""
        count: int = struct.unpack_from("Q", self._memory)[0]
        return count


class Watchdog:
    """Checks one training process: `limit` bytes of resident memory, `patience` seconds without a beat; 0: no limit."""

    def __init__(self, log: Path, limit: int, patience: float) -> None:
        self.pulse = Pulse()
        self.verdict: dict[str, Any] | None = None
        """The error to kill it with; None while it is healthy."""
        self._log, self._limit, self._patience = log, limit, patience
        self._seen = (0, time.monotonic())
        self._due = 0.0
        self._peak = 0

    def check(self, child: ForkedProcess) -> dict[str, Any] | None:
        """Return the verdict, if there is one. Costs nothing between checks."""
        now = time.monotonic()
        if self.verdict is not None or now < self._due:
            return self.verdict
        self._due = now + CHECK_SECONDS
        self._peak = max(self._peak, used := child.memory_bytes())
        RESIDENT_BYTES.set(used)
        if self._limit and used > self._limit:
            self.verdict = self._over_limit(used)
            return self.verdict
        beaten, since = self._seen
        if (count := self.pulse.read()) != beaten:
            self._seen = (count, now)
        elif self._patience and now - since > self._patience:
            self.verdict = self._silent(child, now - since)
        return self.verdict

    def reset(self) -> None:
        """Restart the wait for a beat, after a time without checks."""
        self._seen = (self._seen[0], time.monotonic())

    def _over_limit(self, used: int) -> dict[str, Any]:
        message = (
            f"the training process held {used / MIB:.0f} MiB; the job's limit is {self._limit / MIB:.0f} MiB "
            "(resources.max_memory_bytes, or the worker's TRAINKIT_MAX_JOB_MEMORY_BYTES)"
        )
        evidence = {"peak_memory_bytes": self._peak, "memory_limit_bytes": self._limit, "log": last_lines(self._log)}
        return failure("out_of_memory", message, evidence)

    def _silent(self, child: ForkedProcess, seconds: float) -> dict[str, Any]:
        state = process_state(child.pid)
        child.signal(signal.SIGUSR1)  # it logs the stack of each of its threads
        child.sleep(DUMP_SECONDS)
        evidence = {
            "silent_seconds": round(seconds, 1),
            "process_state": state,
            "peak_memory_bytes": self._peak,
            "log": last_lines(self._log, 60),
        }
        message = f"the training process made no step for {seconds:.0f} s ({state}) and was killed"
        return failure("process_wedged", message, evidence)


def process_state(pid: int) -> str:
    """Return the state that the kernel reports for a process."""
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "unknown"
    return STATES.get(letter, letter)
