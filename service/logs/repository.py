"""SQL of the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.leases import Claim
from service.logs.chunks import LEVELS, LogLine, encode
from service.logs.tables import LogChunk

CHUNKS_A_READ = 64


def add_chunk(session: Session, claim: Claim, first: int, lines: Sequence[LogLine]) -> int:
    """Store lines as first, first + 1, ...; returns the bytes of their body."""
    max_level = max(LEVELS.index(line.level) for line in lines)
    body = encode(lines)
    last = first + len(lines) - 1
    session.add(
        LogChunk(job_id=claim.id, first_seq=first, last_seq=last, fence=claim.fence, max_level=max_level, body=body)
    )
    session.flush()
    return len(body)


def chunks(
    session: Session, job_id: str, after: int, attempt: int | None, min_level: int, *, newest_first: bool = False
) -> Iterator[LogChunk]:
    """Chunks with lines beyond `after` that may hold lines of that attempt and level, a few at a time."""
    statement = select(LogChunk).where(
        LogChunk.job_id == job_id, LogChunk.last_seq > after, LogChunk.max_level >= min_level
    )
    if attempt is not None:
        statement = statement.where(LogChunk.fence == attempt)
    place, bound = LogChunk.first_seq, None
    statement = statement.order_by(place.desc() if newest_first else place)
    while True:
        rest = statement if bound is None else statement.where(place < bound if newest_first else place > bound)
        found = list(session.scalars(rest.limit(CHUNKS_A_READ)))
        for chunk in found:
            session.expunge(chunk)
            yield chunk
        if len(found) < CHUNKS_A_READ:
            return
        bound = found[-1].first_seq
