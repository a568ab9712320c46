"""SQL of the history of a group or an experiment."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from service.experiments.tables import Experiment, Trial
from service.jobs.tables import Job
from service.recommendations.tables import Recommendation


def job_figures(session: Session, project_id: str, group: str, part: str, name: str) -> Sequence[Row[Any]]:
    """Return (id, state, value, se) of all jobs of a group in the order of their submission.

    The value is that of the kept weights, from the evaluation at the job's end; its standard error is the newest logged.
    """
    columns = (
        Job.id.label("job"),
        Job.state.label("state"),
        Job.evaluation[("parts", part, name)].as_float().label("value"),
        Job.metrics_last[f"{part}_{name}_se"].as_float().label("se"),
    )
    found = select(*columns).where(Job.project_id == project_id, Job.group_name == group)
    return session.execute(found.order_by(Job.id)).all()


def trial_figures(session: Session, experiment_id: str, metric: str) -> Sequence[Row[Any]]:
    """Return (job, state, value, se) of all trials of an experiment by number; the state of a deleted job is `deleted`."""
    columns = (
        Trial.job_id.label("job"),
        func.coalesce(Trial.outcome["state"].as_string(), Job.state, "deleted").label("state"),
        Trial.outcome[("metrics", metric)].as_float().label("value"),
        func.coalesce(
            Trial.outcome[("standard_errors", metric)].as_float(), Job.metrics_last[f"{metric}_se"].as_float()
        ).label("se"),
    )
    found = select(*columns).outerjoin(Job, Job.id == Trial.job_id).where(Trial.experiment_id == experiment_id)
    return session.execute(found.order_by(Trial.number)).all()


def experiment_kind(session: Session, project_id: str, group: str) -> str | None:
    """Return the kind of the experiment whose id the group is; None where it is no experiment's."""
    return session.scalar(select(Experiment.kind).where(Experiment.id == group, Experiment.project_id == project_id))


def an_evaluation(session: Session, project_id: str, group: str) -> dict[str, Any] | None:
    """Return the evaluation of the newest job of a group that has one."""
    found = select(Job.evaluation).where(Job.project_id == project_id, Job.group_name == group)
    return session.scalar(found.where(Job.evaluation.is_not(None)).order_by(Job.id.desc()).limit(1))


def trials(session: Session, experiment_id: str, first: int, limit: int) -> dict[int, Trial]:
    """Return the trials from a number on, by number."""
    found = select(Trial).where(Trial.experiment_id == experiment_id, Trial.number >= first)
    return {one.number: one for one in session.scalars(found.order_by(Trial.number).limit(limit))}


def jobs(session: Session, ids: Collection[str]) -> dict[str, Job]:
    """Return those of the jobs that are still there, by id."""
    return {job.id: job for job in session.scalars(select(Job).where(Job.id.in_(ids)))}


def parent_specs(session: Session, project_id: str, ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the specs of jobs of the project, by id."""
    found = select(Job.id, Job.spec).where(Job.id.in_(ids), Job.project_id == project_id)
    return {row.id: row.spec for row in session.execute(found)}


def recommendations(session: Session, ids: Collection[str]) -> dict[str, Recommendation]:
    """Return the recommendations that these jobs followed, by job."""
    found = select(Recommendation).where(Recommendation.job_id.in_(ids))
    return {one.job_id: one for one in session.scalars(found)}


def group_exists(session: Session, project_id: str, group: str) -> bool:
    """Whether the project has a job in the group."""
    found = select(Job.id).where(Job.project_id == project_id, Job.group_name == group)
    return session.scalar(found.limit(1)) is not None
