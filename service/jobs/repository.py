"""All SQL of jobs as clients see them (leases.py and attempts.py hold the workers' side)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from service.datasets.tables import Dataset
from service.jobs.states import ENDED
from service.jobs.tables import Artifact, Attempt, Checkpoint, Decision, IdempotencyKey, Job, JobEvent
from service.models.tables import Model
from service.peer_evaluations import service as comparisons
from service.recommendations.service import freeze


def get(session: Session, project_id: str, job_id: str) -> Job | None:
    """The project's job of that id."""
    return session.scalars(select(Job).where(Job.id == job_id, Job.project_id == project_id)).one_or_none()


def locked(session: Session, project_id: str, job_id: str) -> Job | None:
    """The same, locked until the transaction ends."""
    mine = select(Job).where(Job.id == job_id, Job.project_id == project_id)
    return session.scalars(mine.with_for_update().execution_options(populate_existing=True)).one_or_none()


def listing(
    session: Session,
    project_id: str,
    limit: int,
    after: str | None,
    status: Sequence[str],
    labels: Mapping[str, str],
    updated_after: datetime | None,
    dataset: str | None,
    group: str | None,
) -> Sequence[Job]:
    """Newest first, one more than `limit`."""
    mine = select(Job).where(Job.project_id == project_id)
    if after:
        mine = mine.where(Job.id < after)
    if status:
        mine = mine.where(Job.state.in_(status))
    if dataset:
        mine = mine.where(Job.dataset_id == dataset)
    if group:
        mine = mine.where(Job.group_name == group)
    if updated_after:
        mine = mine.where(Job.updated_at > updated_after)
    for key, value in labels.items():
        mine = mine.where(Job.labels[key].as_string() == value)
    return session.scalars(mine.order_by(Job.id.desc()).limit(limit + 1)).all()


def waiting(session: Session, project_id: str) -> int:
    """How many of the project's jobs have not begun."""
    mine = select(func.count()).where(Job.project_id == project_id, Job.state.in_(("validating", "queued")))
    return session.scalar(mine) or 0


def ended_retries(session: Session, job_id: str) -> int:
    """How many retries of the job have ended."""
    retries = select(func.count()).where(
        Job.parent["job"].as_string() == job_id,
        Job.parent["relation"].as_string() == "retry",
        Job.state.in_(ENDED),
    )
    return session.scalar(retries) or 0


def datasets_of(session: Session, jobs: Sequence[Job]) -> dict[str, Dataset]:
    """The datasets that these jobs name, by id."""
    ids = {job.dataset_id for job in jobs}
    return {row.id: row for row in session.scalars(select(Dataset).where(Dataset.id.in_(ids)))}


def events_after(session: Session, job_id: str, after: int, limit: int) -> Sequence[JobEvent]:
    """Events with seq > after, in order."""
    wanted = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after)
    return session.scalars(wanted.order_by(JobEvent.seq).limit(limit)).all()


def decisions_after(session: Session, job_id: str, after: int, limit: int) -> Sequence[Decision]:
    """Decisions with seq > after, in order."""
    wanted = select(Decision).where(Decision.job_id == job_id, Decision.seq > after)
    return session.scalars(wanted.order_by(Decision.seq).limit(limit)).all()


def attempts(session: Session, job_id: str) -> Sequence[Attempt]:
    """All attempts, oldest first."""
    return session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.fence)).all()


def artifacts(session: Session, job_id: str) -> Sequence[Artifact]:
    """All files the job left, by name."""
    return session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name)).all()


def artifact(session: Session, job_id: str, name: str) -> Artifact | None:
    """One file the job left."""
    return session.get(Artifact, (job_id, name))


def stored_keys(session: Session, job_id: str) -> list[str]:
    """Storage keys of the job's checkpoints and artifacts; its models outlive it."""
    keys = list(session.scalars(select(Checkpoint.storage_key).where(Checkpoint.job_id == job_id)))
    return keys + list(session.scalars(select(Artifact.storage_key).where(Artifact.job_id == job_id)))


def delete_job(session: Session, job: Job) -> None:
    """The row and, by cascade, all that hangs on it; what it tells of a diagnosis is kept."""
    freeze(session, job)
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.resource_id == job.id))
    comparisons.leave(session, job)
    session.delete(job)


def waiting_for(session: Session, dataset_id: str) -> Sequence[Job]:
    """Jobs that wait for the dataset's check."""
    return session.scalars(select(Job).where(Job.dataset_id == dataset_id, Job.state == "validating")).all()


def model_of(session: Session, job_id: str) -> Model | None:
    """The newest model that the job made."""
    made = select(Model).where(Model.job_id == job_id).order_by(Model.id.desc()).limit(1)
    return session.scalars(made).first()
