"""Work on every core the process may use: forked helpers, each isolated, so that a decoder's crash costs one task.

Processes and not threads: small images spend their time in Python, under its lock. Helpers share nothing but what they
inherit at the fork and the file they write to.
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
from typing import Any

TASK_SECONDS = 180.0
"""A task that takes longer is given up: a decoder that never ends must not hold up the rest."""
QUEUED = 2
"""Tasks a helper holds at once: one to work on, one to go on with."""
MOST_HELPERS = 32


def cores() -> int:
    """Cores this process may run on."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:
        return os.cpu_count() or 1


def can_fork() -> bool:
    """Whether helpers can be had: elsewhere than on Linux a fork is unsafe beside the system's own threads."""
    return sys.platform == "linux"


@dataclass(frozen=True, slots=True)
class Lost:
    """In place of a result: the helper died over the task, or was ended because it took too long."""

    reason: str


@dataclass(slots=True)
class _Helper:
    pid: int
    pipe: Connection
    tasks: deque[Any] = field(default_factory=deque)
    since: float = 0.0


class Crew:
    """`size` forked processes that run `work(task)`; tasks and results are pickled between our own processes only.

    A context manager: when the block ends, however it ends, no helper is left.
    """

    def __init__(self, work: Callable[[Any], Any], size: int | None = None) -> None:
        self._work = work
        self._size = min(size or cores(), MOST_HELPERS)
        self._helpers: list[_Helper] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for helper in self._helpers:
            self._end(helper)
        self._helpers.clear()

    def map(self, tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """(task, result) as they get done, in no order; the result is `Lost` where a helper died over the task.

        Tasks are drawn one by one as helpers get free, so that a stream of them never piles up. An exception of `work`
        is raised here.
        """
        for task in tasks:
            while (helper := self._free()) is None:
                yield from self._collect()
            helper.tasks.append(task)
            helper.since = helper.since if len(helper.tasks) > 1 else time.monotonic()
            try:
                helper.pipe.send(task)
            except OSError:
                yield from self._bury(helper)
        while any(helper.tasks for helper in self._helpers):
            yield from self._collect()

    def _free(self) -> _Helper | None:
        least = min(self._helpers, key=lambda helper: len(helper.tasks), default=None)
        if least is not None and (not least.tasks or len(self._helpers) >= self._size):
            return least if len(least.tasks) < QUEUED else None
        return self._fork()

    def _collect(self) -> Iterator[tuple[Any, Any]]:
        busy = {helper.pipe: helper for helper in self._helpers if helper.tasks}
        for pipe in wait(list(busy), timeout=1.0):
            helper = busy[pipe]  # type: ignore[index]
            # while one was buried, the others were listened to: what was ready then may have been heard by now
            if not self._works(helper) or not helper.pipe.poll():
                continue
            try:
                failure, result = helper.pipe.recv()
            except (EOFError, OSError):
                yield from self._bury(helper)
                continue
            task = helper.tasks.popleft()
            helper.since = time.monotonic()
            if failure is not None:
                raise failure
            yield task, result
        for helper in list(self._helpers):
            if self._works(helper) and time.monotonic() - helper.since > TASK_SECONDS:
                yield from self._bury(helper, f"it took more than {TASK_SECONDS:.0f} s")

    def _works(self, helper: _Helper) -> bool:
        return bool(helper.tasks) and any(one is helper for one in self._helpers)

    def _bury(self, helper: _Helper, why: str = "") -> Iterator[tuple[Any, Any]]:
        """The first of its tasks killed it; the others are done by someone else."""
        status = self._end(helper, patience=0.0 if why else 2.0)
        self._helpers.remove(helper)
        lost, *others = helper.tasks
        helper.tasks.clear()
        yield lost, Lost(why or _how(status))
        yield from self.map(others)

    def _fork(self) -> _Helper:
        ours, theirs = Pipe()
        pid = os.fork()
        if pid == 0:
            self._be_helper(ours, theirs)
        theirs.close()
        self._helpers.append(_Helper(pid, ours))
        return self._helpers[-1]

    def _be_helper(self, ours: Connection, theirs: Connection) -> None:
        """In the child: work until the pipe ends, which it also does when the parent dies. Never returns."""
        code = 1
        try:
            gc.freeze()  # collecting what was inherited would copy all of it
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            ours.close()
            for other in self._helpers:
                other.pipe.close()  # else a helper's pipe would stay open while a sibling lives
            while True:
                try:
                    task = theirs.recv()
                except EOFError:
                    break
                try:
                    theirs.send((None, self._work(task)))
                except Exception as error:
                    theirs.send((error, None))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            # Not sys.exit: the parent's handlers and buffers are not the child's to run or to write.
            os._exit(code)

    @staticmethod
    def _end(helper: _Helper, patience: float = 0.0) -> int:
        """Wait `patience` seconds for its own end, which says why; then kill it. The wait status."""
        helper.pipe.close()
        deadline = time.monotonic() + patience
        try:
            while time.monotonic() < deadline:
                pid, status = os.waitpid(helper.pid, os.WNOHANG)
                if pid:
                    return status
                time.sleep(0.005)
            os.kill(helper.pid, signal.SIGKILL)
            return os.waitpid(helper.pid, 0)[1]
        except (ChildProcessError, ProcessLookupError):
            return 0


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"it ended the decoder by {signal.Signals(os.WTERMSIG(status)).name}"
    return "it ended the decoder"


def run(work: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """(task, result) of every task, on all cores where helpers can be had, else one after the other right here."""
    if not can_fork():
        yield from ((task, work(task)) for task in tasks)
        return
    with Crew(work) as crew:
        yield from crew.map(tasks)
