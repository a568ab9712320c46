"""System calls that Python has no function for, by ctypes: Linux only, and nothing to compile."""

from __future__ import annotations

import ctypes
import os
import sys

LINUX = sys.platform == "linux"
# Loaded before any fork: the child of a process with threads must not take the loader's lock.
_LIBC = ctypes.CDLL(None, use_errno=True) if LINUX else None


def syscall(number: int, *arguments: object) -> int:
    """Make a system call and return its result. Raises OSError.

    Args:
        number: the call's number on this processor.
        arguments: integers, pointers (`ctypes.byref`) or None.
    """
    if _LIBC is None:
        raise OSError(38, "only Linux has this system call")  # ENOSYS
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(_LIBC.syscall(ctypes.c_long(number), *passed))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def prctl(option: int, *arguments: object) -> int:
    """Change or read an attribute of this process: prctl(2). Raises OSError."""
    if _LIBC is None:
        raise OSError(38, "only Linux has prctl")
    passed = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments]
    result = int(_LIBC.prctl(option, *(passed + [ctypes.c_ulong(0)] * (4 - len(passed)))))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
