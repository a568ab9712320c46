"""Many small chunks of the metric log become few large ones. Rows, seqs and attempts stay what they were.

A chunk is what one flush brought: often a few rows. A log of a million such would be slow to read, so housekeeping
joins neighbours of one attempt, also while the job runs. Readers never notice: a transaction takes the small ones
away and puts the large one there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from service.database import reading
from service.jobs.states import ENDED
from service.metrics import repository
from service.metrics.chunks import decode_columns, encode_columns, joined

log = logging.getLogger(__name__)
ROWS_A_CHUNK = 8192
"""Enough that a million rows are some hundred reads, few enough that a page of 500 rows decodes little for nothing."""
WORTH_ROWS = 2 * ROWS_A_CHUNK
"""A running job's log is looked at when so many rows have come since."""
CHUNKS_A_TURN = ROWS_A_CHUNK + 1
"""One more than a large chunk of single rows: every turn gets on."""


def compact(sessions: sessionmaker[Session]) -> int:
    """One round over all jobs; returns how many chunks were joined into larger ones. For every minute or so."""
    with reading(sessions) as session:
        jobs = repository.jobs_to_compact(session, WORTH_ROWS)
    count = 0
    for job_id in jobs:
        try:
            while joined_now := compact_job(sessions, job_id):
                count += joined_now
        except OperationalError:
            raise  # the database is away
        except Exception:
            log.exception("job=%s its metric log cannot be compacted", job_id)
    return count


def compact_job(sessions: sessionmaker[Session], job_id: str) -> int:
    """Join what has come since the last time, at most `CHUNKS_A_TURN` chunks; 0 when there is no more to do now."""
    with reading(sessions) as session:
        job = repository.compaction_state(session, job_id)
        if job is None:
            return 0
        found = repository.chunk_bounds(session, job_id, job.compacted_seq, CHUNKS_A_TURN)
    open_fence = None if job.state in ENDED else job.fence
    count = 0
    done = job.compacted_seq
    for group in _groups(found):
        first, last, fence = group[0][0], group[-1][1], group[0][2]
        if last - first + 1 < ROWS_A_CHUNK and (fence == open_fence or len(found) == CHUNKS_A_TURN):
            break  # more of the same will come: not worth writing twice
        if len(group) > 1 and not _join(sessions, job_id, [one[0] for one in group]):
            return 0
        count += len(group) if len(group) > 1 else 0
        done = last
    if done > job.compacted_seq:
        with sessions.begin() as session:
            repository.set_compacted(session, job_id, done)
    return count


def _groups(chunks: list[tuple[int, int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    """Neighbours of one attempt that fill a large chunk together."""
    group: list[tuple[int, int, int]] = []
    for chunk in chunks:
        rows = group[-1][1] - group[0][0] + 1 if group else 0
        if group and (chunk[2] != group[0][2] or rows >= ROWS_A_CHUNK):
            yield group
            group = []
        group.append(chunk)
    if group:
        yield group


def _join(sessions: sessionmaker[Session], job_id: str, firsts: list[int]) -> bool:
    """Replace the chunks that begin at `firsts` by one; False when somebody has taken one of them away."""
    with sessions.begin() as session:
        # retention and deletion hold the job's row too: nothing is put back after they took it
        if not repository.lock_job(session, job_id):
            return False
        found = repository.chunks_between(session, job_id, firsts[0], firsts[-1])
        if [chunk.first_seq for chunk in found] != firsts:
            return False
        body = encode_columns(joined([decode_columns(chunk.body) for chunk in found]))
        repository.replace_chunks(
            session, job_id, firsts[0], firsts[-1], last_seq=found[-1].last_seq, fence=found[0].fence, body=body
        )
    return True
