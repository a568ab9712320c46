"""Who waits for news of a list of jobs waits here: one look at the database serves all readers of the same list.

A look asks the index by `updated_at` for what has changed in the project. Only when something has, or every
`RECONCILE_SECONDS` for jobs that were deleted, are the ids of the list asked for, and only changed rows are read. What a
row shows is compared, not its time: no change is missed because two have the same time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from service.database import db_time, reading
from service.jobs import repository
from service.listing.query import ListQuery

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.5
MAX_SHARE = 0.1
"""At most this part of the time is spent on looking at one list."""
RECONCILE_SECONDS = 2.0
OVERLAP = timedelta(seconds=15)
"""A transaction writes `updated_at` before it commits: rows of so long ago are looked at again."""
CHANGES_KEPT = 200
"""Looks with news that a slow reader may be behind; beyond that he is told the whole list again."""
RowReader = Callable[[Session, ListQuery, Sequence[str]], dict[str, tuple[datetime, bytes]]]
"""Reads jobs as the list shows them: id -> when it was updated, and its row as JSON."""


@dataclass(frozen=True, slots=True)
class ListChange:
    """What one look has found: rows that are new in the list or show something else, and jobs that have left it."""

    rows: tuple[bytes, ...]
    left: tuple[str, ...]
    at: datetime


@dataclass(slots=True)
class JobListWatch:
    """A list that somebody waits for."""

    project_id: str
    query: ListQuery
    read_rows: RowReader
    readers: int = 0
    rows: dict[str, bytes] | None = None
    """Job -> its row as JSON, in the list's order. None until the first look."""
    updated_at: dict[str, datetime] = field(default_factory=dict)
    at: datetime | None = None
    """The database's time before the last look."""
    number: int = 0
    """Counts looks with news."""
    changes: deque[ListChange] = field(default_factory=lambda: deque(maxlen=CHANGES_KEPT))
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    reconciled: float = 0.0

    async def changed(self, known: int, seconds: float) -> bool:
        """Wait until there is news after look `known`; False when there was none for so long."""
        try:
            async with asyncio.timeout(seconds):
                while self.number == known:
                    await self.moved.wait()
        except TimeoutError:
            return False
        return True

    def since(self, known: int) -> Sequence[ListChange] | None:
        """Return the changes after look `known`; None when some of them are no longer kept."""
        count = self.number - known
        return None if count > len(self.changes) else list(self.changes)[len(self.changes) - count :]

    def rows_since(self, at: datetime) -> list[bytes]:
        """Return the rows that may have changed since that time."""
        return [text for job, text in (self.rows or {}).items() if self.updated_at[job] >= at - OVERLAP]


@dataclass(frozen=True, slots=True)
class _Look:
    at: datetime
    ids: Sequence[str] | None
    """None: nothing in the project has changed."""
    rows: Mapping[str, tuple[datetime, bytes]]


class _ListLoop:
    """The lists that are watched in one event loop."""

    def __init__(self) -> None:
        self.watches: dict[Any, JobListWatch] = {}
        self.tasks: dict[Any, asyncio.Task[None]] = {}


class JobListWatcher:
    """One a process."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _ListLoop] = WeakKeyDictionary()

    @contextmanager
    def watching(self, project_id: str, query: ListQuery, key: str, read_rows: RowReader) -> Iterator[JobListWatch]:
        """The list is looked at while the block runs. `key` says all that the query depends on."""
        loop = self._loops.setdefault(asyncio.get_running_loop(), _ListLoop())
        name = (project_id, key)
        watch = loop.watches.get(name)
        if watch is None:
            watch = loop.watches[name] = JobListWatch(project_id, query, read_rows)
            loop.tasks[name] = asyncio.create_task(self._follow(watch))
        watch.readers += 1
        try:
            yield watch
        finally:
            watch.readers -= 1
            if not watch.readers:
                loop.watches.pop(name, None)
                loop.tasks.pop(name).cancel()

    async def _follow(self, watch: JobListWatch) -> None:
        while True:
            begun = time.monotonic()
            try:
                found = await to_thread.run_sync(self._look, watch)
            except SQLAlchemyError as error:
                log.warning("the database is away, %d readers of a list wait: %s", watch.readers, error)
            else:
                take(watch, found)
            spent = time.monotonic() - begun
            await asyncio.sleep(max(LOOK_SECONDS, spent / MAX_SHARE))

    def _look(self, watch: JobListWatch) -> _Look:
        with reading(self._sessions) as session:
            return look(session, watch)


def look(session: Session, watch: JobListWatch) -> _Look:
    """Return what is new in the list."""
    at = db_time(session)
    changed: set[str] = set()
    if watch.at is not None:
        changed = set(repository.updated_since(session, watch.project_id, watch.at - OVERLAP))
        if not changed and time.monotonic() - watch.reconciled < RECONCILE_SECONDS:
            return _Look(at, None, {})
    watch.reconciled = time.monotonic()
    ids = repository.listed_ids(session, watch.project_id, watch.query)[: watch.query.limit]
    known = watch.rows or {}
    new = [job for job in ids if job not in known or job in changed]
    return _Look(at, ids, watch.read_rows(session, watch.query, new))


def take(watch: JobListWatch, found: _Look) -> None:
    """Note what a look has found, and wake the readers when there is news."""
    watch.at = found.at
    if found.ids is None:
        return
    known = watch.rows or {}
    rows: dict[str, bytes] = {}
    for job in found.ids:
        if job in found.rows:
            watch.updated_at[job], rows[job] = found.rows[job]
        elif job in known:
            rows[job] = known[job]
    left = tuple(job for job in known if job not in rows)
    for job in left:
        del watch.updated_at[job]
    news = tuple(text for job, text in rows.items() if known.get(job) != text)
    is_first, watch.rows = watch.rows is None, rows
    if is_first or news or left:
        watch.number += 1
        watch.changes.append(ListChange(news, left, found.at))
        watch.moved.set()
        watch.moved = asyncio.Event()
