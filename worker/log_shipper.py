"""The log of an attempt into the database while it runs: a row a flush, in order, under the fence, each line once.

Trouble with the log never reaches the training: a database that is away is waited out (the file keeps what was said),
and a log that cannot be stored though the database answers is given up.
"""

from __future__ import annotations

import logging
import signal
import time
from collections import deque
from pathlib import Path
from typing import Any

from sqlalchemy import select

from service.database import db_now, reading
from service.jobs.leases import Claim, lock_claimed
from service.leases import StaleFence
from service.logs import service as logs
from service.logs.chunks import Level, Line
from worker.context import Context
from worker.lease import Lease
from worker.log_tail import LogTail
from worker.processes import Exit

log = logging.getLogger(__name__)
SHIP_SECONDS = 1.0
RETRY_SECONDS = 1.0
BUSY_SECONDS = 0.2
"""How long one call may go on while the process says more."""
BATCH_LINES = 2000
MOST_SAID = 500
STRIKES = 3


class LogShipper:
    """Lines of the process's file and of its supervisor. Raises StaleFence when the job is no longer ours, else nothing."""

    def __init__(self, context: Context, claim: Claim, file: Path) -> None:
        self.context = context
        self.claim = claim
        self.job_id = claim.job_id
        self._tail = LogTail(file)
        self._pending: deque[Line] = deque()
        self._batch: list[Line] = []
        self._seq: int | None = None
        self._due = 0.0
        self._said = 0
        self._strikes = 0
        self._given_up = False

    def say(self, level: Level, text: str) -> None:
        """A line of the supervisor's own, after what the process has said so far."""
        self._take()
        self._said += 1
        if self._said <= MOST_SAID:
            self._pending.append(Line(time.time(), level, "supervisor", text))

    def ship(self) -> None:
        """Store what has come, every second or so; for the watching loop."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + SHIP_SECONDS
        while self._ship_one() and time.monotonic() < now + BUSY_SECONDS:
            pass

    def finish(self, lease: Lease[Any]) -> None:
        """Store all that is left, as long as the lease lasts: before the attempt ends, for then the fence closes."""
        if self._said > MOST_SAID:
            dropped = f"... {self._said - MOST_SAID} lines of the supervisor dropped"
            self._pending.append(Line(time.time(), "warning", "supervisor", dropped))
            self._said = 0
        while not self._given_up:
            before = self._tail.offset
            if self._ship_one() or self._tail.offset > before:
                lease.tick()
            elif self._batch:
                time.sleep(RETRY_SECONDS)
                lease.tick()
            else:
                self._pending.extend(self._tail.end())
                if not self._pending:
                    return

    def _take(self) -> None:
        # one block at a time, for memory; the rest waits in the file
        if len(self._pending) < BATCH_LINES and not self._given_up:
            self._pending.extend(self._tail.read())

    def _ship_one(self) -> bool:
        """Store one batch; False when there was none or it could not be stored."""
        if not self._batch:
            self._take()
            self._batch = [self._pending.popleft() for _ in range(min(len(self._pending), BATCH_LINES))]
        if not self._batch or self._given_up:
            return False
        try:
            self._write(self._batch)
        except StaleFence:
            raise
        except Exception as error:
            self._trouble(error)
            return False
        self._batch = []
        self._strikes = 0
        return True

    def _write(self, lines: list[Line]) -> None:
        with self.context.sessions.begin() as session:
            following = lock_claimed(session, self.claim).next_log_seq
            if self._seq is None:
                self._seq = following
            # A commit whose answer was lost may have happened: the counter, which only we move, says so.
            if following == self._seq:
                logs.append(session, self.claim, lines)
        self._seq += len(lines)

    def _trouble(self, error: Exception) -> None:
        self._due = time.monotonic() + RETRY_SECONDS
        if not self._database_answers():
            return
        self._strikes += 1
        if self._strikes >= STRIKES:
            log.error("job=%s its log cannot be stored and is given up", self.job_id, exc_info=error)
            self._given_up = True
            self._batch = []
            self._pending.clear()

    def _database_answers(self) -> bool:
        try:
            with reading(self.context.sessions) as session:
                session.scalar(select(db_now()))
        except Exception as error:  # whatever it is, the answer is no
            log.warning("job=%s its log waits for the database: %s", self.job_id, error)
            return False
        return True


def described(ended: Exit, outcome: str | None) -> str:
    """How a process ended, in words."""
    how = (
        f"exit code {ended.code}"
        if ended.signal is None
        else f"{signal.Signals(ended.signal).name} (exit {ended.status})"
    )
    return f"{how}, {outcome or 'no word of how it went'}, {ended.peak_bytes / 2**20:.0f} MiB at its peak"
