"""Turn the exit of a forked process into an error that names the cause and what to do."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

from trainkit.data.limits import machine_memory
from trainkit.spec.failures import failure
from trainkit.tracebacks import without_paths
from worker.processes import Exit

LAST_LINES = 30
CRASH = "Fatal Python error"
"""How Python's fault handler begins; what follows names the innermost call first."""
MIB = 2**20


def kernel_kills() -> int:
    """Return how many processes the kernel has killed for lack of memory, in this control group or on the machine."""
    for path in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):
        try:
            found = re.search(r"^oom_kill (\d+)", Path(path).read_text(), re.MULTILINE)
        except OSError:
            continue
        if found:
            return int(found[1])
    return 0


def memory_limit() -> int:
    """Return the bytes of memory of this machine, or of the control group."""
    return machine_memory()


def last_lines(path: Path, count: int = LAST_LINES) -> str:
    """Return the end of a log, without the server's paths; empty when it does not exist."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16384))
            return without_paths("\n".join(file.read().decode(errors="replace").splitlines()[-count:]))
    except OSError:
        return ""


def crash_lines(path: Path) -> str:
    """Return the end of a crashed process's log, with the innermost calls of the crash."""
    before, crash, after = last_lines(path, 200).rpartition(CRASH)
    if not crash:
        return last_lines(path)
    return "\n".join([*before.splitlines()[-5:], *f"{crash}{after}".splitlines()[:LAST_LINES]])


def out_of_memory(ended: Exit, kills_before: int) -> bool:
    """Whether the kernel killed the process for lack of memory: SIGKILL, and its count of such kills has risen."""
    return ended.signal == signal.SIGKILL and kernel_kills() > kills_before


def explain_bus_error(error: dict[str, Any], dataset: Path, dataset_id: str) -> dict[str, Any]:
    """Explain SIGBUS, which a mapped file without its bytes causes: name the dataset when its files are damaged."""
    from trainkit.data import DataError, Dataset

    try:
        Dataset.load(dataset)
    except (DataError, OSError) as problem:
        message = f"the prepared form of {dataset_id} became damaged while it was read (SIGBUS): {problem}"
        return failure("data_damaged", message, error["evidence"])
    return error


def error_of_exit(ended: Exit, kills_before: int, log: Path) -> dict[str, Any]:
    """Return the error of a process that ended without reporting one."""
    evidence: dict[str, Any] = {
        "exit_status": ended.status,
        "peak_memory_bytes": ended.peak_bytes,
        "memory_limit_bytes": memory_limit(),
        "log": crash_lines(log),
    }
    peak = f"{ended.peak_bytes / MIB:.0f} MiB at its peak"
    limit = f"{evidence['memory_limit_bytes'] / MIB:.0f} MiB"
    if out_of_memory(ended, kills_before):
        message = f"the process used {peak}; the machine's {limit} ran out and the kernel killed it (exit 137)"
        return failure("out_of_memory", message, evidence)
    if ended.signal == signal.SIGKILL:
        message = f"the process was killed from outside (SIGKILL, exit 137); it used {peak} of {limit}"
        return failure("process_killed", message, evidence)
    if ended.signal is not None:
        name = signal.Signals(ended.signal).name
        crash = "a crash inside a native library" if ended.signal == signal.SIGSEGV else "an abnormal end"
        message = f"the process ended by {name} (exit {ended.status}), {crash}; it used {peak}"
        return failure("process_crashed", message, evidence)
    message = f"the process ended with exit code {ended.status} and gave no reason"
    return failure("process_failed", message, evidence)


def with_log(error: dict[str, Any], log_file: Path, ended: Exit) -> dict[str, Any]:
    """Add the measured memory and the end of the log to an error that the training process reported."""
    evidence = {"peak_memory_bytes": ended.peak_bytes, **(error.get("evidence") or {})}
    if error.get("layer") in ("internal", "platform", "resource"):
        evidence["log"] = last_lines(log_file)
    return {**error, "evidence": evidence}
