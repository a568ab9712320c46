"""Claiming, renewing and losing a job: the database's clock decides, the fence guards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session, aliased

from service.database import db_now
from service.jobs.states import WITH_WORKER, transition
from service.jobs.tables import Attempt, Job
from service.keys.tables import Project
from service.leases import StaleFence
from service.monitoring.after_commit import after_commit
from service.monitoring.metrics import ATTEMPTS_STARTED, QUEUED_SECONDS


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a worker needs to begin: everything but the data itself."""

    job_id: str
    project_id: str
    fence: int
    spec: dict[str, Any]
    decided: dict[str, Any] | None
    dataset_id: str
    prepared_key: str
    wanted: dict[str, Any] | None
    metric_seq: int
    """Last seq in the metric log; 0 when it is empty."""


def claim(session: Session, queue: str, owner: str, lease_seconds: float, most_running: int = 0) -> Claimed | None:
    """Take the best queued job: priority, then the project with least running, then age. One winner; None if none.

    Projects that run `most_running` jobs already (0: no limit), or as many as they have set, are passed over.
    """
    peers = aliased(Job)
    running = (
        select(func.count())
        .where(peers.project_id == Job.project_id, peers.state.in_(WITH_WORKER))
        .correlate(Job)
        .scalar_subquery()
    )
    due = or_(Job.not_before.is_(None), Job.not_before <= db_now())
    most = func.coalesce(Project.settings["max_running_jobs"].as_integer(), most_running)
    queued = select(Job).join(Project, Project.id == Job.project_id)
    queued = queued.where(Job.state == "queued", Job.queue == queue, due, or_(most == 0, running < most))
    candidates = session.scalars(queued.order_by(Job.priority.desc(), running, Job.created_at, Job.id).limit(8)).all()
    for job in candidates:
        fence = job.fence + 1
        queued_at = max(job.updated_at, job.not_before or job.updated_at)
        taken = transition(
            session,
            job,
            "starting",
            actor=owner,
            reason="claimed",
            fence=fence,
            lease_owner=owner,
            lease_expires_at=db_now(plus=lease_seconds),
            phase="starting",
        )
        if not taken:
            continue
        session.refresh(job)
        now = session.scalar(select(db_now()))
        assert now is not None
        session.add(Attempt(job_id=job.id, fence=fence, worker=owner, started_at=now))
        waited = max(0.0, (now - queued_at).total_seconds())
        after_commit(session, ATTEMPTS_STARTED.labels(queue).inc)
        after_commit(session, partial(QUEUED_SECONDS.labels(queue).observe, waited))
        return _claimed(session, job)
    return None


def _claimed(session: Session, job: Job) -> Claimed:
    from service.datasets.tables import Dataset

    dataset = session.get_one(Dataset, job.dataset_id)
    return Claimed(
        job_id=job.id,
        project_id=job.project_id,
        fence=job.fence,
        spec=job.resolved or job.spec,
        decided=job.decided,
        dataset_id=job.dataset_id,
        prepared_key=dataset.prepared_key or "",
        wanted=job.wanted,
        metric_seq=job.next_seq - 1,
    )


def renew(session: Session, job_id: str, fence: int, lease_seconds: float) -> dict[str, Any] | None:
    """Extend the lease and read the wish with the same statement. Raises StaleFence when it is no longer ours."""
    row = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.fence == fence, Job.state.in_(WITH_WORKER))
        .values(lease_expires_at=db_now(plus=lease_seconds))
        .returning(Job.wanted)
        .execution_options(synchronize_session=False)
    ).first()
    if row is None:
        raise StaleFence(job_id)
    requested: dict[str, Any] | None = row[0]
    return requested


def wanted(session: Session, job_id: str, fence: int) -> dict[str, Any] | None:
    """The wish alone, cheaply. Raises StaleFence when the job is no longer ours."""
    row = session.execute(
        select(Job.wanted).where(Job.id == job_id, Job.fence == fence, Job.state.in_(WITH_WORKER))
    ).first()
    if row is None:
        raise StaleFence(job_id)
    requested: dict[str, Any] | None = row[0]
    return requested


def held(session: Session, job_id: str, fence: int) -> Job:
    """The job's row, locked, if the fence still holds it. Every write of a worker begins here."""
    mine = select(Job).where(Job.id == job_id, Job.fence == fence, Job.state.in_(WITH_WORKER)).with_for_update()
    # a session that has seen the row before must not answer from memory
    job = session.scalars(mine.execution_options(populate_existing=True)).one_or_none()
    if job is None:
        raise StaleFence(job_id)
    return job
