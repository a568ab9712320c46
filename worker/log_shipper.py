"""Ship the log of an attempt into the database while it runs: in order, under the fence, each line once.

The log file of the training process is the buffer: lines that were not read yet stay in it. Memory, lines and bytes are
bounded; beyond the limits lines are only counted, and the last ones kept, because the end of a log tells why a process
died. Trouble with the log never reaches the training: the shipper waits while the database is away, and gives up a log
that cannot be stored though the database answers.
"""

from __future__ import annotations

import logging
import re
import signal
import time
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import Any

from service.database import db_time, reading
from service.jobs.leases import lock_claimed
from service.leases import Claim, StaleFence
from service.logs import service as logs
from service.logs.chunks import LINE_CHARACTERS, Level, LogLine
from worker.context import WorkerContext
from worker.lease import Lease
from worker.processes import Exit

log = logging.getLogger(__name__)
SHIP_SECONDS = 1.0
RETRY_SECONDS = 1.0
BUSY_SECONDS = 0.2
"""How long one call may continue while the process writes more."""
BATCH_LINES = 2000
MAX_SUPERVISOR_LINES = 500
STRIKES = 3
BLOCK = 1 << 16
MAX_LINES = 50_000
MAX_BYTES = 8 << 20
LINE_BYTES = 4 * LINE_CHARACTERS + 16
LAST_LINES = 200
LAST_BYTES = 1 << 15
SKIPPED_BLOCKS = 64
"""Blocks of 1 MiB that one call skips: a slow disk must not keep the lease waiting."""
TIMED = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]{8,15}(?:Z|[+-]\d\d:?\d\d)) (debug|info|warning|error) (.*)", re.DOTALL)
WARNING = re.compile(r"\w*Warning: ")


class LogShipper:
    """Lines of the process's file and of its supervisor. Methods raise StaleFence for a void claim, else nothing."""

    def __init__(self, context: WorkerContext, claim: Claim, file: Path) -> None:
        self.context = context
        self.claim = claim
        self.job_id = claim.id
        self._tail = LogTail(file)
        self._pending: deque[LogLine] = deque()
        self._batch: list[LogLine] = []
        self._seq: int | None = None
        self._due = 0.0
        self._supervisor_lines = 0
        self._strikes = 0
        self._given_up = False

    def add(self, level: Level, text: str) -> None:
        """Add a line of the supervisor, after what the process has written so far."""
        self._take()
        self._supervisor_lines += 1
        if self._supervisor_lines <= MAX_SUPERVISOR_LINES:
            self._pending.append(LogLine(time.time(), level, "supervisor", text))

    def ship(self) -> None:
        """Store new lines, about once a second."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + SHIP_SECONDS
        while self._ship_one() and time.monotonic() < now + BUSY_SECONDS:
            pass

    def finish(self, lease: Lease[Any]) -> None:
        """Store all lines that are left while the lease lasts. Call it before the claim ends."""
        if self._supervisor_lines > MAX_SUPERVISOR_LINES:
            dropped = f"... {self._supervisor_lines - MAX_SUPERVISOR_LINES} lines of the supervisor dropped"
            self._pending.append(LogLine(time.time(), "warning", "supervisor", dropped))
            self._supervisor_lines = 0
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
            self._handle_failure(error)
            return False
        self._batch = []
        self._strikes = 0
        return True

    def _write(self, lines: list[LogLine]) -> None:
        with self.context.sessions.begin() as session:
            following = lock_claimed(session, self.claim).next_log_seq
            if self._seq is None:
                self._seq = following
            # A commit whose answer was lost may have happened: the counter, which only this shipper raises, tells.
            if following == self._seq:
                logs.append(session, self.claim, lines)
        self._seq += len(lines)

    def _handle_failure(self, error: Exception) -> None:
        self._due = time.monotonic() + RETRY_SECONDS
        if not self._database_answers():
            return
        self._strikes += 1
        if self._strikes >= STRIKES:
            log.error("job=%s the log cannot be stored and is given up", self.job_id, exc_info=error)
            self._given_up = True
            self._batch = []
            self._pending.clear()

    def _database_answers(self) -> bool:
        try:
            with reading(self.context.sessions) as session:
                db_time(session)
        except Exception as error:  # whatever it is, the answer is no
            log.warning("job=%s the log waits for the database: %s", self.job_id, error)
            return False
        return True


class LogTail:
    """Follows the log file of one attempt; it need not exist yet."""

    def __init__(self, path: Path, max_lines: int = MAX_LINES, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self.offset = 0
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._rest = b""
        self._lines = 0
        self._full = False
        self._dropped = 0
        self._cut = False
        self._in_traceback = False

    def read(self) -> list[LogLine]:
        """Return the next whole lines; [] when there is nothing new, or the limits were reached before."""
        if self._full:
            self._skip()
            return []
        *whole, rest = (self._rest + self._block(BLOCK)).split(b"\n")
        # of an unfinished line only as much is kept as would be shown
        self._rest = rest[rest.rfind(b"\r", 0, -1) + 1 :][:LINE_BYTES]
        lines = [self._line(raw) for raw in whole]
        self._lines += len(lines)
        if self._lines >= self._max_lines or self.offset >= self._max_bytes:
            self._full = True
            text = f"... {self._lines} lines so far: of those that follow only the last {LAST_LINES} are kept"
            lines.append(LogLine(time.time(), "warning", "supervisor", text))
        return lines

    def end(self) -> list[LogLine]:
        """Return what is left once the process has ended and all was read: an unfinished line, or the last of too many."""
        raw, self._rest = self._rest, b""
        if not self._full:
            return [self._line(raw)] if raw else []
        *shown, unfinished = raw.split(b"\n")
        if unfinished:
            shown.append(unfinished)
            self._dropped += 1
        if self._cut:
            shown = shown[1:]  # only the end of a line
        shown = shown[-LAST_LINES:]
        dropped, self._dropped, self._cut = self._dropped - len(shown), 0, False
        lines = [LogLine(time.time(), "warning", "supervisor", f"... {dropped} lines dropped")] if dropped > 0 else []
        return lines + [self._line(raw) for raw in shown]

    def _block(self, size: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                block = file.read(size)
        except OSError:
            return b""
        self.offset += len(block)
        return block

    def _skip(self) -> None:
        for _ in range(SKIPPED_BLOCKS):
            block = self._block(1 << 20)
            if not block:
                return
            self._dropped += block.count(b"\n")
            self._cut = self._cut or len(self._rest) + len(block) > LAST_BYTES
            self._rest = (self._rest + block)[-LAST_BYTES:]

    def _line(self, raw: bytes) -> LogLine:
        """Parse a line: ours have time and level, the level of others is guessed. Of a progress bar the last state."""
        text = raw.rstrip(b"\r").rpartition(b"\r")[2][:LINE_BYTES].decode(errors="replace")
        if ours := TIMED.fullmatch(text):
            try:
                at = datetime.fromisoformat(ours[1]).timestamp()
            except ValueError:
                at = time.time()
            self._in_traceback = False
            level: Level = ours[2]  # type: ignore[assignment]
            return LogLine(at, level, "training", ours[3])
        return LogLine(time.time(), self._level(text), "training", text)

    def _level(self, text: str) -> Level:
        if text.startswith(("Traceback (most recent call last)", "Fatal Python error")):
            self._in_traceback = True
            return "error"
        if self._in_traceback:
            # the first line at the margin is the exception itself
            self._in_traceback = not text or text[0].isspace()
            return "error"
        return "warning" if WARNING.search(text) else "info"


def describe_exit(ended: Exit, outcome: str | None) -> str:
    """How a process ended, as text."""
    how = (
        f"exit code {ended.code}"
        if ended.signal is None
        else f"{signal.Signals(ended.signal).name} (exit {ended.status})"
    )
    return f"{how}, {outcome or 'no outcome reported'}, {ended.peak_bytes / 2**20:.0f} MiB at its peak"
