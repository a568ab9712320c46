"""Jobs that may be trained in one go: the first leads, and the others wait for what its attempt leaves for them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.jobs.leases import held
from service.jobs.tables import Job
from trainkit.spec import DatasetFacts, JobSpec
from trainkit.spec.batching import eligible, group_key
from trainkit.spec.early_stop import across_of

MOST_TRIALS = 16
"""Jobs of one batch."""


def form(jobs: Sequence[Job], facts: DatasetFacts) -> None:
    """Make batches of those of these jobs, all of one dataset and never claimed yet, that can be trained together."""
    groups: dict[str, list[tuple[Job, JobSpec]]] = {}
    for job in jobs:
        if job.resolved is None:
            continue
        spec = JobSpec.model_validate(job.resolved)
        key = group_key(spec) if _may(spec) else None
        if key is not None:
            groups.setdefault(f"{job.priority} {key}", []).append((job, spec))
    for group in groups.values():
        for start in range(0, len(group), MOST_TRIALS):
            for batch in _that_fit(group[start : start + MOST_TRIALS], facts):
                for companion in batch[1:]:
                    companion.batch_leader = batch[0].id


def _may(spec: JobSpec) -> bool:
    """Not where clocks decide, which run while the others train too, nor what other jobs have come to by then."""
    clocked = spec.resources.max_seconds is not None or any(rule.kind == "time_budget" for rule in spec.early_stop)
    return spec.resources.device in ("auto", "cpu") and not clocked and not across_of(spec.early_stop)


def _that_fit(group: Sequence[tuple[Job, JobSpec]], facts: DatasetFacts) -> Iterator[list[Job]]:
    if len(group) < 2:
        return
    if eligible([spec for _, spec in group], facts) is None:
        yield [job for job, _ in group]
        return
    half = len(group) // 2
    yield from _that_fit(group[:half], facts)
    yield from _that_fit(group[half:], facts)


def companions(session: Session, leader_id: str) -> Sequence[Job]:
    """Those that wait for the leader and have never been claimed, oldest first."""
    mine = select(Job).where(Job.batch_leader == leader_id, Job.state == "queued", Job.fence == 0)
    return session.scalars(mine.order_by(Job.id)).all()


def free(session: Session, leader_id: str, fence: int, but: Collection[str]) -> None:
    """The leader's worker trains without them: all companions `but` these wait no longer. Raises StaleFence."""
    held(session, leader_id, fence)
    others = update(Job).where(Job.batch_leader == leader_id, Job.id.not_in(but))
    session.execute(others.values(batch_leader=None).execution_options(synchronize_session=False))
