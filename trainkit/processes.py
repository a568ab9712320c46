"""Child processes that cannot outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
# Loaded before any fork: the child of a process with threads must not take the loader's lock.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Ask the kernel to send this process a signal when its parent dies, and exit at once if it has died already.

    Called in the child, right after the fork; as `preexec_fn` it is `functools.partial(die_with_parent, os.getpid())`.
    Only Linux has such a signal (PR_SET_PDEATHSIG): elsewhere only a parent that has died already is noticed.

    Args:
        parent: Process id of the parent, taken before the fork.
        number: The signal; SIGTERM lets the child clean up.
    """
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, number)
    # The parent may have died between fork and prctl: then no signal ever comes.
    if os.getppid() != parent:
        os._exit(1)
