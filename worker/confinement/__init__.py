"""Confine a forked process: it reads its dataset and what programs need, writes its scratch folder, and nothing else.

What the system has is used: Landlock for files, TCP ports and signals; seccomp for dangerous system calls and every kind of
socket; a user for this process alone where the worker runs as root; no_new_privs; limits on resources. Compiled caches of
torch and matplotlib go to the scratch folder: shared ones would carry one job's code into another's process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from service.settings import Settings
from trainkit.processes import die_with_parent
from worker.confinement import landlock, paths, seccomp, user
from worker.confinement.syscalls import LINUX, prctl

__all__ = ["Confinement", "ConfinementError", "Support", "check_support", "confine", "describe", "summary"]

PR_SET_NO_NEW_PRIVS = 38
MAX_OPEN_FILES = 8192
MAX_PROCESSES = 4096
"""Processes and threads, where the process has a user to itself: the kernel counts them by user."""
SCRATCH_VARIABLES = {
    "HOME": "",
    "TMPDIR": "tmp",
    "XDG_CACHE_HOME": "cache",
    "MPLCONFIGDIR": "cache/matplotlib",
    "TORCHINDUCTOR_CACHE_DIR": "cache/inductor",
    "TRITON_CACHE_DIR": "cache/triton",
    "CUDA_CACHE_PATH": "cache/cuda",
}
"""Where libraries write, below the scratch folder."""


class ConfinementError(Exception):
    """The system lacks what `TRAINKIT_CONFINEMENT=required` asks for."""


@dataclass(frozen=True, slots=True)
class Support:
    """What this system has to confine a process with."""

    landlock: int
    """Version of the kernel's Landlock; 0: none."""
    seccomp: bool
    private_user: bool
    """Whether each process gets a user: the worker is root, and the two above bound the capability it keeps."""

    @property
    def complete(self) -> bool:
        """Whether files, network and system calls are confined. A user is needed only where the worker is root."""
        return self.landlock > 0 and self.seccomp and (self.private_user or not _is_root())

    @property
    def summary(self) -> str:
        """One line for the log and for /v1/workers."""
        parts = [f"landlock {self.landlock}"] if self.landlock else []
        parts += ["seccomp"] if self.seccomp else []
        parts += ["user per process"] if self.private_user else []
        return ", ".join([*parts, "no_new_privs", "resource limits"] if LINUX else ["resource limits"])

    @property
    def missing(self) -> list[str]:
        """What is not confined, and why."""
        lacks = []
        if not self.landlock:
            lacks.append(
                "no Landlock (Linux 5.13, enabled in the LSM list): jobs read and write what the worker's user may"
            )
        if not self.seccomp:
            lacks.append("no seccomp filter (Linux on x86-64 or arm64): jobs may open connections")
        if _is_root() and not self.private_user:
            lacks.append("jobs run as root: give the worker a user without rights, or the usual capabilities of root")
        return lacks


@dataclass(frozen=True, slots=True)
class Confinement:
    """What one process may touch."""

    read: tuple[Path, ...]
    """Files and folders to read, such as the prepared dataset; links are followed."""
    write: Path
    """The scratch folder; where the worker is root, it is given to the process's user."""
    support: Support
    data_bytes: int = 0
    """Largest private memory that it may allocate beyond what it has (RLIMIT_DATA); 0: no limit."""
    cpu_seconds: int = 0
    """Most processor time of all its threads; 0: no limit."""


@cache
def check_support(scratch: Path, *, required: bool = False) -> Support:
    """Find out what this system offers. Raises ConfinementError when it is `required` and something lacks.

    `scratch` is the worker's scratch folder: users are given only where its files can be given to them.
    """
    paths.programs(), paths.sources()  # so that no child has to look for them
    version, filters = landlock.version(), seccomp.available()
    found = Support(version, filters, version > 0 and filters and user.available(scratch))
    if required and not found.complete:
        raise ConfinementError(f"TRAINKIT_CONFINEMENT is `required`, but: {'; '.join(found.missing)}")
    return found


def describe(settings: Settings) -> list[tuple[int, str]]:
    """Return lines for the log of a worker that starts, with their levels: what confines its jobs, and what does not."""
    if settings.confinement == "off":
        return [(logging.WARNING, "confinement is off: jobs read and write what the worker's user may")]
    found = check_support(settings.scratch)
    lines = [(logging.INFO, f"jobs are confined by {found.summary}")]
    lines += [(logging.WARNING, f"jobs are not fully confined: {reason}") for reason in found.missing]
    secret = [settings.home, settings.scratch, *filter(None, [_folder_of(settings.storage_url)])]
    lines += [
        (logging.WARNING, f"{path} lies below {folder}, which every job may read: move it")
        for path, folder in paths.exposed(secret)
    ]
    return lines


def summary(settings: Settings) -> str:
    """Return what confines the jobs of a worker, for the list of workers."""
    return "off" if settings.confinement == "off" else check_support(settings.scratch).summary


def _folder_of(url: str) -> Path | None:
    return None if "://" in url and not url.startswith("file://") else Path(url.removeprefix("file://"))


def confine(allowed: Confinement) -> None:
    """Confine this process and all that it starts, for good. Called in a forked child, before it reads any input.

    Raises OSError where the system refuses what `check_support` found: an unconfined job must not start.
    """
    offered = allowed.support
    _use_scratch(allowed.write)
    _limit(allowed)
    if not LINUX:
        return
    ruleset = _rules(allowed) if offered.landlock else None
    devices = paths.gpu_devices()
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if offered.private_user:
        parent = os.getppid()
        user.become_private(allowed.write, devices)
        die_with_parent(parent)  # the kernel forgets the signal at a change of user
        os.environ["USER"] = os.environ["LOGNAME"] = "trainkit"
    else:
        user.drop_capabilities()
    for name in ("tmp", "cache"):
        (allowed.write / name).mkdir(mode=0o700, exist_ok=True)
    if ruleset is not None:
        ruleset.enforce()
    if offered.seccomp:
        seccomp.enforce()


def _rules(allowed: Confinement) -> landlock.Ruleset:
    ruleset = landlock.Ruleset()
    ruleset.grant(landlock.RUN, paths.programs())
    ruleset.grant(landlock.READ, (*paths.sources(), *paths.kernel_folders()))
    ruleset.grant(landlock.READ_DIR, paths.search_folders(allowed.write))
    ruleset.grant(landlock.DEVICE, (*paths.plain_devices(), *paths.gpu_devices()))
    ruleset.grant(landlock.WRITE & ~landlock.REFER, [paths.SHARED_MEMORY])
    ruleset.grant(landlock.READ, _resolved(allowed.read))
    ruleset.grant(landlock.WRITE, [allowed.write])
    return ruleset


def _resolved(given: Iterable[Path]) -> list[Path]:
    return [path.resolve() for path in given]


def _use_scratch(folder: Path) -> None:
    for name, below in SCRATCH_VARIABLES.items():
        os.environ[name] = str(folder / below)
    tempfile.tempdir = None  # the parent's choice


def _limit(allowed: Confinement) -> None:
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: MAX_OPEN_FILES}
    if allowed.support.private_user:
        limits[resource.RLIMIT_NPROC] = MAX_PROCESSES
    if allowed.cpu_seconds:
        limits[resource.RLIMIT_CPU] = allowed.cpu_seconds
    if allowed.data_bytes:
        limits[resource.RLIMIT_DATA] = _data_bytes() + allowed.data_bytes
    for kind, limit in limits.items():
        _, hard = resource.getrlimit(kind)
        least = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with contextlib.suppress(ValueError, OSError):  # a system may refuse a limit below what is in use
            resource.setrlimit(kind, (least, least))


def _data_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def _is_root() -> bool:
    return os.geteuid() == 0
