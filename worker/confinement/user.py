"""A user of its own for each forked process of a worker that runs as root.

The number is a base plus the process id: unique among the live processes of the machine, without a list of users. The
process keeps one capability, to read files of others: the dataset in the storage folder is not this user's, and which files
it may read is Landlock's to say. So this is used only together with Landlock and seccomp.
"""

from __future__ import annotations

import ctypes
import os
import platform
import stat
from collections.abc import Sequence
from pathlib import Path

from worker.confinement.syscalls import LINUX, prctl, syscall

FIRST_USER = 1_900_000_000
"""No range of login, service or container users begins there; a process id has 22 bits at most."""
CAPSET = {"x86_64": 126, "aarch64": 91}
CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SETGID, CAP_SETUID, CAP_SETPCAP = 0, 1, 2, 6, 7, 8
CAPABILITY_VERSION = 0x20080522
PR_SET_DUMPABLE, PR_SET_SECUREBITS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 4, 28, 47, 2
NO_SETUID_FIXUP, NO_SETUID_FIXUP_LOCKED = 1 << 2, 1 << 3


class CapabilityHeader(ctypes.Structure):
    """struct __user_cap_header_struct."""

    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class CapabilityWord(ctypes.Structure):
    """struct __user_cap_data_struct: 32 capabilities; two of them are passed."""

    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def available(scratch: Path) -> bool:
    """Whether this process can give files in `scratch` to another user and become one: root with its capabilities."""
    if not LINUX or os.geteuid() != 0 or platform.machine() not in CAPSET:
        return False
    needed = (CAP_CHOWN, CAP_DAC_READ_SEARCH, CAP_SETGID, CAP_SETUID, CAP_SETPCAP)
    if any(not _capabilities() >> one & 1 for one in needed):
        return False
    probe = scratch / f".user-{os.getpid()}"
    try:
        scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe.touch(0o600)
        os.chown(probe, FIRST_USER, FIRST_USER)  # refused by servers that map root, and in user namespaces
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True


def become_private(folder: Path, devices: Sequence[Path]) -> None:
    """Give `folder` to a user that no other process has, and become that user. Raises OSError.

    Args:
        folder: what the process writes to; given to the user.
        devices: files whose groups the user joins, such as a GPU's.
    """
    user = FIRST_USER + os.getpid()
    os.chown(folder, user, user, follow_symlinks=False)
    # the change of user takes no capability away, and access(2), which compilers ask before they write, counts them
    prctl(PR_SET_SECUREBITS, NO_SETUID_FIXUP | NO_SETUID_FIXUP_LOCKED)
    os.setgroups(sorted(_groups_of(devices)))
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    keep_capabilities(1 << CAP_DAC_READ_SEARCH)
    # also for what it starts: the compiler and the interpreter may lie in a folder of root
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_READ_SEARCH)
    # a change of user takes /proc/self away; other processes of this kind have other users
    prctl(PR_SET_DUMPABLE, 1)


def drop_capabilities() -> None:
    """Drop what makes this process more than an owner of files, where it cannot become another user. Raises OSError."""
    if platform.machine() in CAPSET and (held := _capabilities()):
        keep_capabilities(held & (1 << CAP_DAC_READ_SEARCH | 1 << CAP_DAC_OVERRIDE))


def keep_capabilities(mask: int) -> None:
    """Keep the capabilities of a mask, all below number 32, for this process and what it starts. Raises OSError."""
    words = (CapabilityWord * 2)(CapabilityWord(mask, mask, mask), CapabilityWord(0, 0, 0))
    syscall(CAPSET[platform.machine()], ctypes.byref(CapabilityHeader(CAPABILITY_VERSION, 0)), words)


def _capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _groups_of(devices: Sequence[Path]) -> set[int]:
    found = [device.stat() for device in devices]
    return {one.st_gid for one in found if one.st_gid and one.st_mode & stat.S_IRGRP and not one.st_mode & stat.S_IROTH}
