"""The log of a job: every line of every attempt by a gap-free seq, appended under the fence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from service.jobs.leases import lock_claimed
from service.leases import Claim
from service.logs import repository
from service.logs.chunks import LEVELS, Level, LogLine, clean, decode
from service.timestamps import rfc3339


@dataclass(frozen=True, slots=True)
class LoggedLine:
    """A line with its place in the log."""

    seq: int
    attempt: int
    line: LogLine

    def as_json(self) -> dict[str, Any]:
        """As scripts read it."""
        line = self.line
        return {
            "seq": self.seq,
            "at": _time(line.at),
            "attempt": self.attempt,
            "level": line.level,
            "source": line.source,
            "text": line.text,
        }

    def as_text(self) -> str:
        """As people read it: time, attempt, level, text."""
        return f"{_time(self.line.at)} {self.attempt} {self.line.level} {self.line.text}\n"


@dataclass(frozen=True, slots=True)
class LogPage:
    """Lines in order, and the last seq that was looked at to find them."""

    lines: list[LoggedLine]
    next: int


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which lines: of one attempt, from a level on, with a text (in any case) in them."""

    attempt: int | None = None
    level: Level = "debug"
    contains: str | None = None

    @property
    def min_level(self) -> int:
        return LEVELS.index(self.level)

    @property
    def everything(self) -> bool:
        return self == LogFilter()

    def matches(self, line: LogLine) -> bool:
        """Whether a line of the right attempt passes."""
        if LEVELS.index(line.level) < self.min_level:
            return False
        return self.contains is None or self.contains.casefold() in line.text.casefold()


def append(session: Session, claim: Claim, lines: Sequence[LogLine]) -> tuple[int, int]:
    """Store lines and return (first_seq, last_seq). Raises StaleFence, and stores nothing, for a void claim."""
    job = lock_claimed(session, claim)
    first = job.next_log_seq
    if lines:
        job.log_bytes += repository.add_chunk(session, claim, first, [clean(line) for line in lines])
        job.next_log_seq = first + len(lines)
        session.flush()
    return first, first + len(lines) - 1


def read(session: Session, job_id: str, last: int, filter: LogFilter, after: int, limit: int) -> LogPage:
    """Return up to `limit` lines that pass the filter with seq > after, in order; `last` is the last seq that the job had."""
    reached = max(after, last)
    found: list[LoggedLine] = []
    for chunk in repository.chunks(session, job_id, after, filter.attempt, filter.min_level):
        for seq, line in enumerate(decode(chunk.body), chunk.first_seq):
            if seq > after and filter.matches(line):
                found.append(LoggedLine(seq, chunk.fence, line))
                if len(found) == limit:
                    return LogPage(found, seq)
        reached = max(reached, chunk.last_seq)
    return LogPage(found, reached)


def tail(session: Session, job_id: str, last: int, filter: LogFilter, after: int, count: int) -> LogPage:
    """Return the last `count` lines that pass the filter with seq > after, in order."""
    reached = max(after, last)
    found: list[LoggedLine] = []
    for chunk in repository.chunks(session, job_id, after, filter.attempt, filter.min_level, newest_first=True):
        lines = decode(chunk.body)
        for seq, line in zip(range(chunk.last_seq, chunk.first_seq - 1, -1), reversed(lines), strict=True):
            if seq > after and filter.matches(line):
                found.append(LoggedLine(seq, chunk.fence, line))
                if len(found) == count:
                    break
        reached = max(reached, chunk.last_seq)
        if len(found) == count:
            break
    return LogPage(found[::-1], reached)


def _time(at: float) -> str:
    return rfc3339(datetime.fromtimestamp(at, UTC))
