"""What a process that reads a stranger's file may take: memory, a share of the machine's, and processor time."""

from __future__ import annotations

import logging
import resource
import socket
import time
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

from service.database import reading
from service.settings import Settings
from service.workers import repository as workers
from trainkit.data.limits import ReadLimits
from trainkit.data.process_pool import data_bytes
from worker import exit_errors
from worker.context import WorkerContext

log = logging.getLogger(__name__)
MIB = 2**20
USABLE = 0.8
"""Share of the machine's memory for all slots: the rest is the system's, the API's and the workers' own."""
LEAST_MEMORY = 512 * MIB
"""Fewer bytes read no dataset: the libraries alone need a part of them."""
KNOWN_SECONDS = 30.0
_slots: dict[str, tuple[float, int]] = {}
"""Host -> (when they were counted, slots of all its workers)."""


@dataclass(frozen=True, slots=True)
class ReaderLimits:
    """Limits of one reading process."""

    read: ReadLimits
    """What the readers check before they read; its memory is this process's."""
    cpu_seconds: int
    hard_memory: int | None = None
    """The limit that the process inherited (`ulimit -d`), where it is lower than the share of memory."""

    @property
    def memory_hint(self) -> str:
        """What to do when the memory is not enough."""
        if self.hard_memory is not None:
            limit = f"The worker was started with a limit of {self.hard_memory // MIB} MiB (`ulimit -d`): raise it"
        else:
            limit = "Who runs the service can raise TRAINKIT_READER_MEMORY_BYTES"
        return f"Split the dataset, or make images smaller. {limit}, and give the worker more memory."


def reader_limits(context: WorkerContext) -> ReaderLimits:
    """Return the limits of a process that this slot forks."""
    return limits_of(context.settings, _slots_of_host(context))


def limits_of(settings: Settings, slots: int) -> ReaderLimits:
    """Return the limits where `slots` processes may read or train at once on this machine."""
    share = settings.reader_memory_bytes or int(USABLE * exit_errors.memory_limit()) // max(1, slots)
    share = max(share, LEAST_MEMORY)
    inherited = resource.getrlimit(resource.RLIMIT_DATA)[1]
    left = share if inherited == resource.RLIM_INFINITY else max(0, inherited - data_bytes())
    read = ReadLimits(
        memory_bytes=max(1, min(share, left)),
        columns=settings.max_table_columns,
        cells=settings.max_table_cells,
        expansion=settings.max_expansion,
    )
    return ReaderLimits(read, settings.reader_cpu_seconds, inherited if left < share else None)


def apply(limits: ReaderLimits) -> None:
    """Limit the memory and processor time of this process. An inherited limit that is lower stays as it is.

    The memory limit is on data (RLIMIT_DATA), without mapped files: prepared images may be larger than memory.
    """
    _lower(resource.RLIMIT_DATA, data_bytes() + limits.read.memory_bytes)
    _lower(resource.RLIMIT_CPU, limits.cpu_seconds, grace=10)


def _lower(kind: int, limit: int, grace: int = 0) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard == resource.RLIM_INFINITY:
        hard = limit + grace
    hard = min(hard, limit + grace)
    # of processor time the signal at the lower limit says what happened, the one at the upper limit kills
    resource.setrlimit(kind, (min(limit, max(1, hard - 1)) if grace else min(limit, hard), hard))


def warn_of_low_limit() -> None:
    """Log that this worker can read no dataset, because its own memory is limited."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if hard != resource.RLIM_INFINITY and hard - data_bytes() < LEAST_MEMORY:
        log.warning(
            "this worker may use %s MiB of memory (ulimit -d), of which %s are taken: reading a dataset needs %s more",
            hard // MIB,
            data_bytes() // MIB,
            LEAST_MEMORY // MIB,
        )


def _slots_of_host(context: WorkerContext) -> int:
    host = socket.gethostname()
    counted_at, slots = _slots.get(host, (float("-inf"), 1))
    if time.monotonic() - counted_at > KNOWN_SECONDS:
        try:
            with reading(context.sessions) as session:
                slots = sum(worker.slots for worker in workers.alive(session, host=host)) or 1
        except DBAPIError:
            return slots  # the last answer holds until there is another
        _slots[host] = time.monotonic(), slots
    return slots
