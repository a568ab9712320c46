"""The identity of a process, as a lease keeps it: so that a process that has ended is known without waiting.

A process id alone names nobody: numbers are used again, and every host and every container has its own. So the
identity holds the kernel's boot, the namespaces in which the number and the time are counted, and the process's start.
Whoever shares boot and namespaces sees the same processes. All others see nothing, and wait for the lease to expire.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

PROC = Path("/proc")
ENDED_STATES = frozenset("ZXx")
"""A zombie runs no code any more: it waits for its parent to read its exit status."""


def current() -> str | None:
    """Identity of this process: `boot;pid namespace;time namespace;pid/start`; None where the kernel does not say."""
    return _of_process(os.getpid())


def has_ended(identity: str | None) -> bool:
    """Whether that process is known to have ended. False also for one that cannot be seen from this process."""
    seen_from = _kernel()
    if identity is None or seen_from is None:
        return False
    kernel, _, process = identity.rpartition(";")
    pid, _, start = process.partition("/")
    if kernel != seen_from or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # another user's
    found = _stat(int(pid))
    return found is not None and (found[1] != start or found[0] in ENDED_STATES)


@cache
def _of_process(pid: int) -> str | None:
    kernel, found = _kernel(), _stat(pid)
    return None if kernel is None or found is None else f"{kernel};{pid}/{found[1]}"


@cache
def _kernel() -> str | None:
    """The boot and the namespaces: who has the same ones sees the same process ids and start times."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        spaces = [str((PROC / "self/ns" / name).readlink()) for name in ("pid", "time") if _has_namespace(name)]
    except OSError:
        return None
    return ";".join([boot, *spaces])


def _has_namespace(name: str) -> bool:
    return os.path.lexists(PROC / "self/ns" / name)


def _stat(pid: int) -> tuple[str, str] | None:
    """(state, start in clock ticks since the boot); None when it cannot be read."""
    try:
        # the second field is the program's name in brackets, and may hold anything
        fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return (fields[0], fields[19]) if len(fields) > 19 else None
