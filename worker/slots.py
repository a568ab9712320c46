"""How the slots of a worker that serves the queues `data` and `predict` are shared between projects and kinds of work.

Of S slots, heavy work (checks, fetches, previews, reports, evaluations, exports) has S - 1 at most: one is left to
predictions. One project has S - 2 of them for heavy work and S - 1 in all, so that others get a slot at once however
long its work takes. A worker with fewer slots leaves each project at least one, and two in all.

A reservation is a record lock on a byte of a file that all slots inherit: the kernel releases it when a slot dies,
however it dies. Nothing is written.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import tempfile

from service.fair_share.admission import WorkClass

QUEUES = ("data", "predict")
"""Queues whose work shares the slots."""
HEAVY_OF_ALL = 0
"""First byte of the slots that have heavy work; those of a project begin at multiples of PROJECT_BYTES."""
PROJECT_BYTES = 4096
MAX_SLOTS = PROJECT_BYTES // 2


class Slots:
    """The shared slots of one worker. Made in the parent; each slot's process reserves for itself."""

    def __init__(self, count: int) -> None:
        self.count = min(count, MAX_SLOTS)
        descriptor, path = tempfile.mkstemp(prefix="trainkit-slots-")
        os.unlink(path)  # noqa: PTH108 - the descriptor is all that is needed
        self._file = descriptor
        self._refused = mmap.mmap(-1, len(QUEUES))

    def reserve(self, project_id: str, work_class: WorkClass) -> bool:
        """Reserve this slot for such work of the project, in place of what it was reserved for; False when it may not."""
        self.release()
        first = PROJECT_BYTES * (1 + int.from_bytes(hashlib.sha256(project_id.encode()).digest()[:5], "big"))
        limits = [(first, max(2, self.count - 1))]
        if work_class == "heavy":
            limits.append((first + MAX_SLOTS, max(1, self.count - 2)))
            limits.append((HEAVY_OF_ALL, max(1, self.count - 1)))
        if all(self._lock_one(start, most) for start, most in limits):
            return True
        self.release()
        return False

    def release(self) -> None:
        """Give the reservation back."""
        fcntl.lockf(self._file, fcntl.LOCK_UN)

    def note_refusal(self, queue: str) -> None:
        """Remember that work of the queue waits for a slot to be released."""
        self._refused[QUEUES.index(queue)] = 1

    def take_refusals(self) -> list[str]:
        """Return the queues whose work was refused since the last call."""
        refused = [queue for place, queue in enumerate(QUEUES) if self._refused[place]]
        self._refused[:] = bytes(len(QUEUES))
        return refused

    def close(self) -> None:
        """Close the file and the memory."""
        os.close(self._file)
        self._refused.close()

    def _lock_one(self, start: int, most: int) -> bool:
        for place in range(start, start + most):
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except OSError:
                continue
            return True
        return False


_slots: Slots | None = None


def share(count: int) -> None:
    """Let the slots that are forked from this process share `count` of them. Called before the pool is forked."""
    global _slots
    _slots = Slots(count)


def admits(queue: str, project_id: str, work_class: WorkClass) -> bool:
    """Whether this slot may begin such work now; it is reserved then. A process that shares none may begin anything."""
    if _slots is None or _slots.reserve(project_id, work_class):
        return True
    _slots.note_refusal(queue)
    return False


def release() -> None:
    """End the reservation of this slot."""
    if _slots is not None:
        _slots.release()


def take_refusals() -> list[str]:
    """Return the queues whose work found no slot since the last call."""
    return [] if _slots is None else _slots.take_refusals()
