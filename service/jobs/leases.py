"""Claim, renew and check the lease of a job. Time is the database's; a claim is void once the job's fence rises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from service import process_identity
from service.database import after_commit, db_now, db_time
from service.fair_share import repository as fair_share
from service.instrumentation import ATTEMPTS_STARTED, QUEUED_SECONDS
from service.jobs import repository
from service.jobs.tables import Attempt, Job
from service.jobs.transitions import transition
from service.leases import Claim, StaleFence


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
        return self.claim.id


def claim(
    session: Session,
    queue: str,
    owner: str,
    lease_seconds: float,
    most_running: int = 0,
    may_use_gpu: Callable[[Session, str], bool] | None = None,
) -> ClaimedJob | None:
    """Claim the next queued job; None without one.

    The project with the fewest running jobs comes first, then the one that was served longest ago; of its jobs the one
    of the highest priority, then the oldest. Projects that run `most_running` jobs already (0: no limit), or as many as
    they have set for themselves, are passed over. `may_use_gpu`: whether a project may use this worker's GPU
    now; of one that may not, a job that asks for the CPU is claimed. Of several callers one wins each job.
    """
    for project_id in repository.projects_to_serve(session, queue, most_running):
        without_gpu = may_use_gpu is not None and not may_use_gpu(session, project_id)
        job = repository.next_queued(session, queue, project_id, without_gpu=without_gpu)
        if job is None:
            continue
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
            lease_process=process_identity.current(),
            lease_expires_at=db_now(plus=lease_seconds),
            phase="starting",
        )
        if not taken:
            continue
        fair_share.record_served(session, job.project_id, queue)
        session.refresh(job)
        now = db_time(session)
        repository.add_attempt(session, Attempt(job_id=job.id, fence=fence, worker=owner, started_at=now))
        waited = max(0.0, (now - queued_at).total_seconds())
        after_commit(session, ATTEMPTS_STARTED.labels(queue).inc)
        after_commit(session, partial(QUEUED_SECONDS.labels(queue).observe, waited))
        return _claimed(session, job)
    return None


def _claimed(session: Session, job: Job) -> ClaimedJob:
    dataset = repository.datasets_of(session, [job])[job.dataset_id]
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


def renew(session: Session, claim: Claim, lease_seconds: float) -> dict[str, Any] | None:
    """Extend the lease and return the requested action, in one statement.

    Raises:
        StaleFence: the claim is void.
    """
    row = repository.renew_lease(session, claim, lease_seconds)
    if row is None:
        raise StaleFence(claim.id)
    return row[0]


def requested_action(session: Session, claim: Claim) -> dict[str, Any] | None:
    """Return the requested action without a write.

    Raises:
        StaleFence: the claim is void.
    """
    row = repository.requested_action(session, claim)
    if row is None:
        raise StaleFence(claim.id)
    return row[0]


def lock_claimed(session: Session, claim: Claim) -> Job:
    """Return the job's row, locked for the transaction. Every write of a worker begins here.

    Raises:
        StaleFence: the claim is void.
    """
    job = repository.lock_claimed(session, claim)
    if job is None:
        raise StaleFence(claim.id)
    return job
