"""One byte that the Celery parent and all of its pool processes share: the worker has been told to stop."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator

# Anonymous shared memory survives fork, so the parent's signal handler reaches every slot without any message.
_flag = mmap.mmap(-1, 1)
_busy = False


def ask() -> None:
    """Tell every slot to hand its work back."""
    _flag[0] = 1


def asked() -> bool:
    """Whether the worker is going away."""
    return _flag[0] == 1


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """While this slot has work that must be handed back and not just dropped."""
    global _busy
    _busy = True
    try:
        yield
    finally:
        _busy = False


def slot_is_busy() -> bool:
    """Whether this process is doing something."""
    return _busy
