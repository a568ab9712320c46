"""SQL of the metric log."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from service.database import db_now
from service.jobs.states import WITH_WORKER
from service.jobs.tables import Decision, Job
from service.leases import StaleFence
from service.metrics.chunks import Row, encode
from service.metrics.tables import MetricChunk, MetricSuperseded


def append_chunk(session: Session, job_id: str, fence: int, rows: Sequence[Row], best: dict[str, float]) -> int:
    """Hand out `len(rows)` seqs and store the rows in one transaction under the fence; returns the first seq."""
    last = {f"{row.split}_{row.name}": row.value if isfinite(row.value) else None for row in rows}
    known = session.execute(
        select(Job.metrics_last, Job.metrics_best)
        .where(Job.id == job_id, Job.fence == fence, Job.state.in_(WITH_WORKER))
        .with_for_update()
    ).one_or_none()
    if known is None:
        raise StaleFence(job_id)
    following = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.fence == fence)
        .values(
            next_seq=Job.next_seq + len(rows),
            metrics_last={**known[0], **last},
            metrics_best={**known[1], **best},
            updated_at=db_now(),
        )
        .returning(Job.next_seq)
        .execution_options(synchronize_session=False)
    ).scalar_one()
    first = following - len(rows)
    session.execute(
        insert(MetricChunk).values(
            job_id=job_id, first_seq=first, last_seq=following - 1, fence=fence, body=encode(rows)
        )
    )
    return first


def best_so_far(session: Session, job_id: str) -> dict[str, float]:
    """The best value of each metric, as the job's row has it."""
    return dict(session.scalar(select(Job.metrics_best).where(Job.id == job_id)) or {})


def chunk_before(session: Session, job_id: str, seq: int) -> MetricChunk | None:
    """The chunk that ends before that row."""
    earlier = select(MetricChunk).where(MetricChunk.job_id == job_id, MetricChunk.first_seq < seq)
    return session.scalars(earlier.order_by(MetricChunk.first_seq.desc()).limit(1)).one_or_none()


def chunks_after(session: Session, job_id: str, after: int, limit: int) -> list[MetricChunk]:
    """Chunks that hold rows beyond `after`, in order."""
    wanted = select(MetricChunk).where(MetricChunk.job_id == job_id, MetricChunk.last_seq > after)
    return list(session.scalars(wanted.order_by(MetricChunk.first_seq).limit(limit)))


def superseded_ranges(session: Session, job_id: str) -> list[tuple[int, int]]:
    """(first, last) of every range of rows that were run again."""
    ranges = select(MetricSuperseded.first_seq, MetricSuperseded.last_seq).where(MetricSuperseded.job_id == job_id)
    return [(first, last) for first, last in session.execute(ranges)]


def count_superseded(session: Session, job_id: str) -> int:
    """A number that changes whenever rows are marked: how many seqs the ranges cover."""
    covered = func.coalesce(func.sum(MetricSuperseded.last_seq - MetricSuperseded.first_seq + 1), 0)
    return int(session.scalar(select(covered).where(MetricSuperseded.job_id == job_id)) or 0)


def mark_superseded(session: Session, job_id: str, fence: int, first: int, last: int) -> None:
    """Remember that rows first..last belong to steps that are run again; the rows themselves stay."""
    session.merge(MetricSuperseded(job_id=job_id, first_seq=first, last_seq=last, fence=fence))


def add_decision(session: Session, decision: Decision) -> None:
    session.add(decision)
