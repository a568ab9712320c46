"""Landlock: files, TCP ports and signals that a process may use, enforced by the kernel for it and its children.

https://docs.kernel.org/userspace-api/landlock.html. Each version (ABI) of the kernel knows more rights; what this one
knows is used. The path of a file counts when it is opened: descriptors that are open already stay usable.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from worker.confinement.syscalls import syscall

# The numbers are the same on every processor.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG, PATH_BENEATH = 1, 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = (1 << bit for bit in range(13, 16))
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""Rights that a rule of a single file can hold; the others belong to folders."""

READ = READ_FILE | READ_DIR
RUN = READ | EXECUTE
WRITE = READ | WRITE_FILE | TRUNCATE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER
"""Neither links, sockets nor devices can be created: a link would lead whoever reads the results elsewhere."""
DEVICE = READ_FILE | WRITE_FILE | IOCTL_DEV

BIND_TCP, CONNECT_TCP = 1, 2
SCOPE_ABSTRACT_SOCKETS, SCOPE_SIGNALS = 1, 2
_FILE_RIGHTS_OF_ABI = ((1, (1 << 13) - 1), (2, REFER), (3, TRUNCATE), (5, IOCTL_DEV))


class RulesetAttributes(ctypes.Structure):
    """struct landlock_ruleset_attr."""

    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class PathRule(ctypes.Structure):
    """struct landlock_path_beneath_attr."""

    _pack_ = 1
    _fields_ = [("rights", ctypes.c_uint64), ("folder", ctypes.c_int32)]


@cache
def version() -> int:
    """Return the kernel's Landlock ABI; 0 when it has none, or has it turned off."""
    try:
        return syscall(CREATE_RULESET, None, 0, VERSION_FLAG)
    except OSError:
        return 0


def handled_rights(abi: int) -> int:
    """Return the file rights that an ABI knows, all of which are refused where no rule grants them."""
    return sum(rights for since, rights in _FILE_RIGHTS_OF_ABI if abi >= since)


class Ruleset:
    """Rules that are collected, then enforced. Nothing is allowed but what was granted."""

    def __init__(self) -> None:
        abi = version()
        self._handled = handled_rights(abi)
        attributes = RulesetAttributes(self._handled)
        if abi >= 4:
            attributes.network = BIND_TCP | CONNECT_TCP  # no rule grants a port
        if abi >= 6:
            attributes.scoped = SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS
        # an older kernel refuses a longer structure
        size = 24 if abi >= 6 else 16 if abi >= 4 else 8
        self._descriptor = syscall(CREATE_RULESET, ctypes.byref(attributes), size, 0)

    def grant(self, rights: int, paths: Iterable[Path]) -> None:
        """Grant rights on files, and on folders with all that is below them; a path that does not exist is left out."""
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                self._grant(rights & self._handled, path)

    def _grant(self, rights: int, path: Path) -> None:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(opened).st_mode):
                rights &= FILE_RIGHTS
            if rights:
                syscall(ADD_RULE, self._descriptor, PATH_BENEATH, ctypes.byref(PathRule(rights, opened)), 0)
        except OSError as error:
            if error.errno != errno.EBADFD:  # a file of a kernel-internal file system, which no rule can name
                raise
        finally:
            os.close(opened)

    def enforce(self) -> None:
        """Confine this process, for good. Needs no_new_privs. Raises OSError."""
        syscall(RESTRICT_SELF, self._descriptor, 0)
        os.close(self._descriptor)
