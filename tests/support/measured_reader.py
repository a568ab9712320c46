"""Reading one upload as a worker does, in a process of its own, with what it took of memory and processor time."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.settings import Settings
from worker import intake
from worker.processes import fork
from worker.reader_limits import limits_of
from worker.spool import SpoolReader

MEMORY = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of one upload."""

    state: str
    """`ready` or `invalid`; else how the process died."""
    error: dict[str, Any]
    report: dict[str, Any]
    grown_bytes: int
    """Largest resident memory of the process, or of one that it started, over what it had at the fork."""
    cpu_seconds: float
    """Of the process and all that it started."""


def read_upload(upload: Path, folder: Path, kind: str | None = None, target: str | None = None) -> Reading:
    """Read a file into `folder/prepared` with a limit of memory of `MEMORY` bytes."""
    limits = limits_of(Settings.from_env({"TRAINKIT_READER_MEMORY_BYTES": str(MEMORY)}), 1)
    reader = SpoolReader(folder / "spool")
    before, held = resource.getrusage(resource.RUSAGE_CHILDREN), resident()
    child = fork(lambda: intake.read(upload, folder, kind, target, None, limits), log=folder / "log.txt", threads=1)
    ended = child.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    events = [event for event in reader.read() if event["type"] != "progress"]
    last: dict[str, Any] = events[-1] if events else {"type": f"{ended}: {(folder / 'log.txt').read_text()[-2000:]}"}
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Reading(last["type"], last.get("error") or {}, last.get("report") or {}, ended.peak_bytes - held, seconds)


def resident() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
