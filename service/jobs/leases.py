"""Claim, renew and check the lease of a job. Time is the database's; a claim is void once the job's fence rises."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from service.database import after_commit, db_now
from service.instrumentation import ATTEMPTS_STARTED, QUEUED_SECONDS
from service.jobs.states import WITH_WORKER, transition
from service.jobs.tables import Attempt, Job
from service.keys.tables import Project
from service.leases import StaleFence


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write to a job: every write names it, and fails with StaleFence once another claim was made.

    `fence` is a fencing token: it rises with each claim of the job, so it also numbers the attempts.
    """

    job_id: str
    fence: int


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A claim and what its attempt starts from."""

    claim: Claim
    project_id: str
    spec: dict[str, Any]
    runtime: dict[str, Any] | None
    dataset_id: str
    prepared_key: str
    requested_action: dict[str, Any] | None
    metric_seq: int
    """Last seq in the metric log; 0 when it is empty."""

    @property
    def job_id(self) -> str:
        return self.claim.job_id


def claim(session: Session, queue: str, owner: str, lease_seconds: float, most_running: int = 0) -> ClaimedJob | None:
    """Claim the next queued job, by priority, then the project with fewest running jobs, then age; None without one.

    Of several callers one wins. Projects that run `most_running` jobs already (0: no limit), or as many as they have
    set for themselves, are passed over.
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


def _claimed(session: Session, job: Job) -> ClaimedJob:
    from service.datasets.tables import Dataset

    dataset = session.get_one(Dataset, job.dataset_id)
    return ClaimedJob(
        claim=Claim(job.id, job.fence),
        project_id=job.project_id,
        spec=job.resolved or job.spec,
        runtime=job.runtime,
        dataset_id=job.dataset_id,
        prepared_key=dataset.prepared_key or "",
        requested_action=job.requested_action,
        metric_seq=job.next_seq - 1,
    )


def holds(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    """The conditions under which a claim is valid, for the WHERE of a statement."""
    return Job.id == claim.job_id, Job.fence == claim.fence, Job.state.in_(WITH_WORKER)


def renew(session: Session, claim: Claim, lease_seconds: float) -> dict[str, Any] | None:
    """Extend the lease and return the requested action, in one statement.

    Raises:
        StaleFence: the claim is void.
    """
    row = session.execute(
        update(Job)
        .where(*holds(claim))
        .values(lease_expires_at=db_now(plus=lease_seconds))
        .returning(Job.requested_action)
        .execution_options(synchronize_session=False)
    ).first()
    if row is None:
        raise StaleFence(claim.job_id)
    requested: dict[str, Any] | None = row[0]
    return requested


def requested_action(session: Session, claim: Claim) -> dict[str, Any] | None:
    """Return the requested action without a write.

    Raises:
        StaleFence: the claim is void.
    """
    row = session.execute(select(Job.requested_action).where(*holds(claim))).first()
    if row is None:
        raise StaleFence(claim.job_id)
    requested: dict[str, Any] | None = row[0]
    return requested


def lock_claimed(session: Session, claim: Claim) -> Job:
    """Return the job's row, locked for the transaction. Every write of a worker begins here.

    Raises:
        StaleFence: the claim is void.
    """
    # populate_existing: a session that has loaded the row before must not answer from its identity map
    query = select(Job).where(*holds(claim)).with_for_update().execution_options(populate_existing=True)
    job = session.scalars(query).one_or_none()
    if job is None:
        raise StaleFence(claim.job_id)
    return job
