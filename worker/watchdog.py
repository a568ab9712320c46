"""Whether a training process still gets on, and keeps within its memory; if not, what to say when it is killed."""

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
from worker.processes import Child

LOOK_SECONDS = 0.25
DUMP_SECONDS = 0.5
STATES = {
    "T": "stopped (SIGSTOP)",
    "t": "stopped by a debugger",
    "D": "waiting for a disk",
    "R": "running",
    "S": "waiting",
}


class Pulse:
    """A counter in memory that supervisor and training process share: the one raises it, the other watches it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)
        self._count = 0

    def beat(self) -> None:
        """In the training process, at every step and every word."""
        self._count += 1
        struct.pack_into("Q", self._memory, 0, self._count)

    def read(self) -> int:
        """How often it has beaten."""
        count: int = struct.unpack_from("Q", self._memory)[0]
        return count


class Watchdog:
    """Looks at one training process. `limit` bytes of resident memory, `patience` seconds without a beat; 0: any."""

    def __init__(self, log: Path, limit: int, patience: float) -> None:
        self.pulse = Pulse()
        self.verdict: dict[str, Any] | None = None
        """Why it must be killed; None while all is well."""
        self._log, self._limit, self._patience = log, limit, patience
        self._seen = (0, time.monotonic())
        self._due = 0.0
        self._peak = 0

    def look(self, child: Child) -> dict[str, Any] | None:
        """The verdict, when there is one. Costs nothing between looks."""
        now = time.monotonic()
        if self.verdict is not None or now < self._due:
            return self.verdict
        self._due = now + LOOK_SECONDS
        self._peak = max(self._peak, used := child.memory_bytes())
        RESIDENT_BYTES.set(used)
        if self._limit and used > self._limit:
            self.verdict = self._over(used)
            return self.verdict
        beaten, since = self._seen
        if (count := self.pulse.read()) != beaten:
            self._seen = (count, now)
        elif self._patience and now - since > self._patience:
            self.verdict = self._silent(child, now - since)
        return self.verdict

    def forgive(self) -> None:
        """Begin to wait anew, after a time in which nobody looked."""
        self._seen = (self._seen[0], time.monotonic())

    def _over(self, used: int) -> dict[str, Any]:
        message = (
            f"the training process held {used / MIB:.0f} MiB; the job's limit is {self._limit / MIB:.0f} MiB "
            "(resources.max_memory_bytes, or the worker's TRAINKIT_MAX_JOB_MEMORY_BYTES)"
        )
        evidence = {"peak_memory_bytes": self._peak, "memory_limit_bytes": self._limit, "log": last_lines(self._log)}
        return failure("out_of_memory", message, evidence)

    def _silent(self, child: Child, seconds: float) -> dict[str, Any]:
        state = process_state(child.pid)
        child.signal(signal.SIGUSR1)  # it writes down where each of its threads is
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
    """What the kernel says that a process is doing."""
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "unknown"
    return STATES.get(letter, letter)
