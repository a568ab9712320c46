"""A pool of forked worker processes: a crash of one, for example in a decoder, fails a single task.

Processes and not threads, because decoding small images spends its time in Python under the GIL. Workers share only
what they inherit at the fork and the file they write to.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import resource

TASK_SECONDS = 180.0
"""Time limit of a task: a decoder that never ends must not block the others."""
TASKS_PER_WORKER = 2
"""Tasks that a worker holds at once: the current and the next one."""
MAX_WORKERS = 32
LEAST_SHARE = 512 * 2**20
"""Bytes of memory that a worker needs at least: to decode the largest image."""


def cores() -> int:
    """Return the number of cores that this process may run on."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:
        return os.cpu_count() or 1


def data_bytes() -> int:
    """Return the bytes of this process that count against RLIMIT_DATA."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def _workers_in_memory() -> int:
    """Return how many workers this process's own limit of memory has room for, each with at least `LEAST_SHARE`."""
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    return MAX_WORKERS if limit == resource.RLIM_INFINITY else max(1, (limit - data_bytes()) // LEAST_SHARE)


def _limit_to_share(workers: int) -> None:
    """Limit this worker to its part of what its parent may use: limits of processes are inherited whole, not divided."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit != resource.RLIM_INFINITY:
        held = data_bytes()
        share = held + max(0, limit - held) // workers
        resource.setrlimit(resource.RLIMIT_DATA, (share, share))
    seconds, _ = resource.getrlimit(resource.RLIMIT_CPU)
    if seconds != resource.RLIM_INFINITY:
        share = max(1, seconds // workers)
        resource.setrlimit(resource.RLIMIT_CPU, (share, share))


def can_fork() -> bool:
    """Return whether forking is safe: only on Linux, elsewhere the system has threads of its own."""
    return sys.platform == "linux"


@dataclass(frozen=True, slots=True)
class LostTask:
    """Result of a task whose worker died or exceeded the time limit."""

    reason: str


@dataclass(slots=True)
class _Worker:
    pid: int
    pipe: Connection
    tasks: deque[Any] = field(default_factory=deque)
    since: float = 0.0


class ProcessPool:
    """`size` forked processes that run `work(task)`; tasks and results are pickled between parent and workers only.

    A context manager: no worker is left when the block ends.
    """

    def __init__(self, work: Callable[[Any], Any], size: int | None = None) -> None:
        self._work = work
        self._size = min(size or cores(), MAX_WORKERS, _workers_in_memory())
        self._workers: list[_Worker] = []

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            self._terminate(worker)
        self._workers.clear()

    def map(self, tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Yield (task, result) in order of completion; the result is a `LostTask` if the worker died.

        Tasks are taken from the iterable only when a worker is free. An exception of `work` is raised.
        """
        for task in tasks:
            while (worker := self._idle_worker()) is None:
                yield from self._collect()
            worker.tasks.append(task)
            worker.since = worker.since if len(worker.tasks) > 1 else time.monotonic()
            try:
                worker.pipe.send(task)
            except OSError:
                yield from self._discard(worker)
        while any(worker.tasks for worker in self._workers):
            yield from self._collect()

    def _idle_worker(self) -> _Worker | None:
        least = min(self._workers, key=lambda worker: len(worker.tasks), default=None)
        if least is not None and (not least.tasks or len(self._workers) >= self._size):
            return least if len(least.tasks) < TASKS_PER_WORKER else None
        return self._fork()

    def _collect(self) -> Iterator[tuple[Any, Any]]:
        busy = {worker.pipe: worker for worker in self._workers if worker.tasks}
        for pipe in wait(list(busy), timeout=1.0):
            worker = busy[pipe]  # type: ignore[index]
            # discarding a worker also collects from the others: this result may have been received already
            if not self._is_busy(worker) or not worker.pipe.poll():
                continue
            try:
                failure, result = worker.pipe.recv()
            except (EOFError, OSError):
                yield from self._discard(worker)
                continue
            task = worker.tasks.popleft()
            worker.since = time.monotonic()
            if failure is not None:
                raise failure
            yield task, result
        for worker in list(self._workers):
            if self._is_busy(worker) and time.monotonic() - worker.since > TASK_SECONDS:
                yield from self._discard(worker, f"decoding took more than {TASK_SECONDS:.0f} s")

    def _is_busy(self, worker: _Worker) -> bool:
        return bool(worker.tasks) and any(one is worker for one in self._workers)

    def _discard(self, worker: _Worker, why: str = "") -> Iterator[tuple[Any, Any]]:
        """Remove a dead worker: its first task failed, the others are given to other workers."""
        status = self._terminate(worker, patience=0.0 if why else 2.0)
        self._workers.remove(worker)
        failed_task, *others = worker.tasks
        worker.tasks.clear()
        yield failed_task, LostTask(why or _exit_reason(status))
        yield from self.map(others)

    def _fork(self) -> _Worker:
        parent_end, worker_end = Pipe()
        pid = os.fork()
        if pid == 0:
            self._run_worker(parent_end, worker_end)
        worker_end.close()
        self._workers.append(_Worker(pid, parent_end))
        return self._workers[-1]

    def _run_worker(self, parent_end: Connection, worker_end: Connection) -> None:
        """Run in the child: work until the pipe is closed, also by the death of the parent. Never returns."""
        code = 1
        try:
            gc.freeze()  # a collection of the inherited objects would copy their pages
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            parent_end.close()
            _limit_to_share(self._size)
            for other in self._workers:
                other.pipe.close()  # else this copy would keep the pipe open
            while True:
                try:
                    task = worker_end.recv()
                except EOFError:
                    break
                try:
                    worker_end.send((None, self._work(task)))
                except Exception as error:
                    worker_end.send((error, None))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            # not sys.exit, which would run exit handlers and flush buffers of the parent
            os._exit(code)

    @staticmethod
    def _terminate(worker: _Worker, patience: float = 0.0) -> int:
        """Wait `patience` seconds for the worker to end by itself, then kill it. Return the wait status."""
        worker.pipe.close()
        deadline = time.monotonic() + patience
        try:
            while time.monotonic() < deadline:
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
                if pid:
                    return status
                time.sleep(0.005)
            os.kill(worker.pid, signal.SIGKILL)
            return os.waitpid(worker.pid, 0)[1]
        except (ChildProcessError, ProcessLookupError):
            return 0


def _exit_reason(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"the decoder was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return "the decoder exited"


def run(work: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield (task, result) of every task, on all cores if forking is safe, else one after the other in this process."""
    if not can_fork():
        yield from ((task, work(task)) for task in tasks)
        return
    with ProcessPool(work) as pool:
        yield from pool.map(tasks)
