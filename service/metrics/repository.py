"""SQL of the metric log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import isfinite
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Compiled,
    Connection,
    Dialect,
    Integer,
    Row,
    String,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from service.database import db_now
from service.jobs.repository import holds
from service.jobs.states import ENDED
from service.jobs.tables import UNCOMPACTED, Decision, Job, JobBestMetric
from service.leases import Claim, StaleFence
from service.metrics.chunks import Columns, encode_columns
from service.metrics.tables import MetricChunk, MetricSuperseded

SHOWN = frozenset({"train", "val", "test"})
"""Splits whose last values lie on the job's row; those of layers and machines are in the log alone."""


def newest(columns: Columns) -> dict[str, float | None]:
    """The last value of each series that the job's row shows; None for one that is not finite."""
    # of equal keys the last one wins
    last = dict(zip(columns.index.tolist(), columns.value.tolist(), strict=True))
    return {
        f"{split}_{name}": last[index] if isfinite(last[index]) else None
        for index, (split, name) in enumerate(columns.series)
        if split in SHOWN and index in last
    }


def append_chunk(session: Session, claim: Claim, columns: Columns, best: dict[str, float]) -> int:
    """Hand out a seq to each row and store the rows in one transaction under the fence; returns the first seq."""
    count = len(columns.index)
    last = newest(columns)
    body = encode_columns(columns)
    known = session.execute(
        select(Job.metrics_last, Job.metrics_best, Job.project_id).where(*holds(claim)).with_for_update()
    ).one_or_none()
    if known is None:
        raise StaleFence(claim.id)
    following = session.execute(
        update(Job)
        .where(*holds(claim))
        .values(
            next_seq=Job.next_seq + count,
            metric_bytes=Job.metric_bytes + len(body),
            metrics_last={**known[0], **last},
            metrics_best={**known[1], **best},
            updated_at=db_now(),
        )
        .returning(Job.next_seq)
        .execution_options(synchronize_session=False)
    ).scalar_one()
    write_best(session, known[2], claim.id, known[1], {**known[1], **best})
    first = following - count
    session.execute(
        insert(MetricChunk).values(
            job_id=claim.id,
            first_seq=first,
            last_seq=following - 1,
            fence=claim.fence,
            body=body,
        )
    )
    return first


def write_best(
    session: Session, project_id: str, job_id: str, before: Mapping[str, float], after: Mapping[str, float]
) -> None:
    """Keep the best metrics of a locked job where lists find them."""
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if not changed:
        return
    session.execute(delete(JobBestMetric).where(JobBestMetric.job_id == job_id, JobBestMetric.name.in_(changed)))
    rows = [
        {"job_id": job_id, "name": name, "project_id": project_id, "value": after[name]}
        for name in changed
        if name in after
    ]
    if rows:
        session.execute(insert(JobBestMetric), rows)


def best_so_far(session: Session, job_id: str) -> dict[str, float]:
    """The best value of each metric, as the job's row has it."""
    return dict(session.scalar(select(Job.metrics_best).where(Job.id == job_id)) or {})


class Chunk(NamedTuple):
    """One stored body and the rows that it holds."""

    first_seq: int
    last_seq: int
    fence: int
    body: bytes


JOB, AFTER, MOST = (
    bindparam("job", type_=String),
    bindparam("after", type_=BigInteger),
    bindparam("most", type_=Integer),
)
# seqs have no gaps, so the chunk to begin with is found by the key alone, however long the log is
_BEGIN = (
    select(func.max(MetricChunk.first_seq)).where(MetricChunk.job_id == JOB, MetricChunk.first_seq <= AFTER + 1)
).scalar_subquery()
_CHUNKS = (
    select(MetricChunk.first_seq, MetricChunk.last_seq, MetricChunk.fence, MetricChunk.body)
    .where(MetricChunk.job_id == JOB, MetricChunk.first_seq >= func.coalesce(_BEGIN, 0), MetricChunk.last_seq > AFTER)
    .order_by(MetricChunk.first_seq)
    .limit(MOST)
)
_RANGES = select(MetricSuperseded.first_seq, MetricSuperseded.last_seq).where(MetricSuperseded.job_id == JOB)


def chunks_after(session: Session, job_id: str, after: int, limit: int) -> list[Chunk]:
    """Up to `limit` chunks that hold rows beyond `after`, in order."""
    parameters = {"job": job_id, "after": after, "most": limit}
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        return _in_binary(connection, parameters)
    return [Chunk(*row) for row in connection.execute(_CHUNKS, parameters)]


@cache
def _compiled(dialect: Dialect) -> Compiled:
    return _CHUNKS.compile(dialect=dialect)


def _in_binary(connection: Connection, parameters: dict[str, Any]) -> list[Chunk]:
    """As text, PostgreSQL's bytes come in hexadecimal: twice as many, and six times slower to read."""
    compiled = _compiled(connection.dialect)
    driver, errors = connection.connection.driver_connection, connection.dialect.loaded_dbapi
    assert driver is not None
    try:
        with driver.cursor(binary=True) as cursor:
            return [Chunk(*row) for row in cursor.execute(str(compiled), {**compiled.params, **parameters})]
    except errors.Error as error:
        raise OperationalError(str(compiled), parameters, error) from error


def chunk_before(session: Session, job_id: str, seq: int) -> Chunk | None:
    """The chunk that ends before that row."""
    columns = (MetricChunk.first_seq, MetricChunk.last_seq, MetricChunk.fence, MetricChunk.body)
    earlier = select(*columns).where(MetricChunk.job_id == job_id, MetricChunk.first_seq < seq)
    found = session.execute(earlier.order_by(MetricChunk.first_seq.desc()).limit(1)).one_or_none()
    return None if found is None else Chunk(*found)


def superseded_ranges(session: Session, job_id: str) -> list[tuple[int, int]]:
    """(first, last) of every range of rows that were run again."""
    return [(first, last) for first, last in session.connection().execute(_RANGES, {"job": job_id})]


def count_superseded(ranges: Sequence[tuple[int, int]]) -> int:
    """A number that changes whenever rows are marked: how many seqs the ranges cover."""
    return sum(last - first + 1 for first, last in ranges)


def mark_superseded(session: Session, claim: Claim, first: int, last: int) -> None:
    """Remember that rows first..last belong to steps that are run again; the rows themselves stay."""
    session.merge(MetricSuperseded(job_id=claim.id, first_seq=first, last_seq=last, fence=claim.fence))


def add_decision(session: Session, decision: Decision) -> None:
    session.add(decision)


def jobs_to_compact(session: Session, rows: int) -> Sequence[str]:
    """Return the jobs whose log has `rows` rows beyond the compacted ones, or any when the job has ended."""
    behind = Job.next_seq - 1 - Job.compacted_seq
    due = or_(behind >= rows, Job.state.in_(ENDED))
    return session.scalars(select(Job.id).where(text(f"jobs.{UNCOMPACTED}"), due)).all()


def compaction_state(session: Session, job_id: str) -> Row[int, str, int] | None:
    """Return (compacted_seq, state, fence) of a job; None when it was deleted."""
    return session.execute(select(Job.compacted_seq, Job.state, Job.fence).where(Job.id == job_id)).one_or_none()


def chunk_bounds(session: Session, job_id: str, after: int, limit: int) -> list[tuple[int, int, int]]:
    """Return (first_seq, last_seq, fence) of up to `limit` chunks beyond `after`, without their bodies."""
    columns = (MetricChunk.first_seq, MetricChunk.last_seq, MetricChunk.fence)
    beyond = select(*columns).where(MetricChunk.job_id == job_id, MetricChunk.first_seq > after)
    return [(a, b, c) for a, b, c in session.execute(beyond.order_by(MetricChunk.first_seq).limit(limit))]


def lock_job(session: Session, job_id: str) -> bool:
    """Lock a job's row until the transaction ends; False when the job was deleted."""
    return session.scalar(select(Job.id).where(Job.id == job_id).with_for_update()) is not None


def chunks_between(session: Session, job_id: str, first: int, last: int) -> Sequence[Row[int, int, int, bytes]]:
    """Return (first_seq, last_seq, fence, body) of the chunks that begin from `first` to `last`."""
    columns = (MetricChunk.first_seq, MetricChunk.last_seq, MetricChunk.fence, MetricChunk.body)
    between = (MetricChunk.job_id == job_id) & MetricChunk.first_seq.between(first, last)
    return session.execute(select(*columns).where(between).order_by(MetricChunk.first_seq)).all()


def replace_chunks(
    session: Session, job_id: str, first: int, last: int, *, last_seq: int, fence: int, body: bytes
) -> None:
    """Replace the chunks of a locked job that begin from `first` to `last` by one with their rows."""
    between = (MetricChunk.job_id == job_id) & MetricChunk.first_seq.between(first, last)
    before = session.scalar(select(func.sum(func.length(MetricChunk.body))).where(between)) or 0
    counted = update(Job).where(Job.id == job_id).values(metric_bytes=Job.metric_bytes - before + len(body))
    session.execute(counted.execution_options(synchronize_session=False))
    session.execute(delete(MetricChunk).where(between))
    session.execute(
        insert(MetricChunk).values(job_id=job_id, first_seq=first, last_seq=last_seq, fence=fence, body=body)
    )


def set_compacted(session: Session, job_id: str, seq: int) -> None:
    """Write up to which row the log was compacted. `updated_at` stays: readers see the same rows."""
    session.execute(update(Job).where(Job.id == job_id).values(compacted_seq=seq))
