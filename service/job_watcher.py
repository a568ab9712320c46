"""Who waits for news of a job waits here: one look at the database serves all readers of a process.

While anybody waits, one task asks every `LOOK_AGAIN` seconds for the counters of all jobs that are waited for, in one
statement, and wakes those whose job has moved. Nothing is pushed here, and nothing can be missed: a reader who wakes
up asks the database from its own cursor. Neither a slow reader nor a thousand of them cost a worker anything.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.database import reading
from service.jobs import repository
from service.jobs.list_watcher import JobListWatcher
from service.load_shedding import leave_work

log = logging.getLogger(__name__)
LOOK_AGAIN = 0.25
"""Seconds between two looks for those who wait."""
JOBS_A_STATEMENT = 500
ANSWERS_KEPT = 128
T = TypeVar("T")


class Counters(NamedTuple):
    """What changes whenever there is something new to tell of a job."""

    metric: int
    event: int
    log: int
    state: str
    updated_at: datetime


@dataclass(slots=True)
class JobWatch:
    """A job that somebody waits for. `counters` is None until the first look, and for a job that is no more."""

    counters: Counters | None = None
    readers: int = 0
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def changed(self, known: Counters | None, seconds: float) -> bool:
        """Wait until the counters are others than `known`; False when they were not for so long."""
        try:
            async with asyncio.timeout(seconds):
                while self.counters == known:
                    await self.moved.wait()
        except TimeoutError:
            return False
        return True


class _Loop:
    """The waiting readers of one event loop."""

    def __init__(self) -> None:
        self.watches: dict[str, JobWatch] = {}
        self.task: asyncio.Task[None] | None = None
        self.answers: OrderedDict[Hashable, asyncio.Future[Any]] = OrderedDict()


class JobWatcher:
    """One a process."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self.lists = JobListWatcher(sessions)
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = WeakKeyDictionary()

    @property
    def readers(self) -> int:
        """How many wait now."""
        return sum(watch.readers for loop in self._loops.values() for watch in loop.watches.values())

    @contextmanager
    def watching(self, job_id: str) -> Iterator[JobWatch]:
        """The job is looked at while the block runs."""
        loop = self._current_loop()
        watch = loop.watches.setdefault(job_id, JobWatch())
        watch.readers += 1
        if loop.task is None or loop.task.done():
            loop.task = asyncio.create_task(self._follow(loop))
        try:
            yield watch
        finally:
            watch.readers -= 1
            if not watch.readers:
                loop.watches.pop(job_id, None)

    async def look_until(self, job_id: str, look: Callable[[], T], worth: Callable[[T], bool], seconds: float) -> T:
        """What `look` found, run in a thread: at once when that is worth an answer, else with the job's next news.

        After `seconds` whatever it found last.
        """
        deadline = time.monotonic() + seconds
        found = await to_thread.run_sync(look)
        if worth(found) or not seconds:
            return found
        leave_work()
        with self.watching(job_id) as watch:
            known = None
            while not worth(found) and (left := deadline - time.monotonic()) > 0:
                # the first change is our own first look at the counters: what came since `look` is not missed
                await watch.changed(known, left)
                known = watch.counters
                found = await to_thread.run_sync(look)
        return found

    async def share(self, key: Hashable, ask: Callable[[], T]) -> T:
        """The answer of `ask`, run in a thread, to all who have the same `key`: it says all that the answer depends on."""
        answers = self._current_loop().answers
        found = answers.get(key)
        if found is None or (found.done() and (found.cancelled() or found.exception() is not None)):
            # of no reader's own task: the one who asked first may go away
            found = answers[key] = asyncio.ensure_future(to_thread.run_sync(ask))
            while len(answers) > ANSWERS_KEPT:
                answers.popitem(last=False)
        answers.move_to_end(key)
        answer: T = await asyncio.shield(found)
        return answer

    def _current_loop(self) -> _Loop:
        return self._loops.setdefault(asyncio.get_running_loop(), _Loop())

    async def _follow(self, loop: _Loop) -> None:
        while loop.watches:
            try:
                found = await to_thread.run_sync(self._counters, list(loop.watches))
            except SQLAlchemyError as error:
                log.warning("the database is away, %d readers wait: %s", self.readers, error)
            else:
                for job_id, watch in loop.watches.items():
                    if job_id in found and watch.counters != found[job_id]:
                        watch.counters = found[job_id]
                        watch.moved.set()
                        watch.moved = asyncio.Event()
            await asyncio.sleep(LOOK_AGAIN)
        loop.answers.clear()

    def _counters(self, jobs: list[str]) -> dict[str, Counters | None]:
        found: dict[str, Counters | None] = dict.fromkeys(jobs)
        for begin in range(0, len(jobs), JOBS_A_STATEMENT):
            some = jobs[begin : begin + JOBS_A_STATEMENT]
            with reading(self._sessions) as session:
                for row in repository.counters(session, some):
                    found[row.id] = Counters(
                        row.next_seq, row.next_event_seq, row.next_log_seq, row.state, row.updated_at
                    )
        return found
