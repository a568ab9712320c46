"""A flag that the Celery parent and all of its pool processes share: the worker is stopping."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator

# Anonymous shared memory survives fork, so the parent's signal handler reaches every slot without a message.
_flag = mmap.mmap(-1, 1)
_busy = False


def request() -> None:
    """Ask every slot to hand its work back."""
    _flag[0] = 1


def requested() -> bool:
    """Whether the worker is stopping."""
    return _flag[0] == 1


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Mark this slot as having work, which must be handed back before its process ends."""
    global _busy
    _busy = True
    try:
        yield
    finally:
        _busy = False


def slot_is_busy() -> bool:
    """Whether this process has work."""
    return _busy
