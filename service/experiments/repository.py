"""All SQL of experiments and their trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, func, or_, select, update
from sqlalchemy.orm import Session

from service.experiments.tables import Experiment, Trial
from service.jobs.states import ENDED as ENDED_JOBS
from service.jobs.tables import IdempotencyKey, Job

OPEN = ("waiting", "running", "stopping")
GOING_ON = ("waiting", "running")
ENDED = ("succeeded", "stopped", "failed")


def get(session: Session, project_id: str, experiment_id: str) -> Experiment | None:
    """The project's experiment of that id."""
    statement = select(Experiment).where(Experiment.id == experiment_id, Experiment.project_id == project_id)
    return session.scalars(statement).one_or_none()


def open_in(session: Session, project_id: str, limit: int) -> Sequence[str]:
    """Return ids of the project's experiments that go on and are not asked to stop."""
    statement = select(Experiment.id).where(Experiment.project_id == project_id, Experiment.state.in_(GOING_ON))
    return session.scalars(statement.order_by(Experiment.id).limit(limit)).all()


def find_by_id(session: Session, experiment_id: str) -> Experiment | None:
    """Return the experiment of that id, of any project; None when it was deleted."""
    return session.get(Experiment, experiment_id)


def add(session: Session, experiment: Experiment) -> None:
    """Insert an experiment."""
    session.add(experiment)
    session.flush()


def add_trial(session: Session, trial: Trial) -> None:
    """Insert a trial."""
    session.add(trial)
    session.flush()


def locked(session: Session, experiment_id: str) -> Experiment | None:
    """The experiment, which nobody else plans until the transaction ends."""
    one = select(Experiment).where(Experiment.id == experiment_id).with_for_update()
    return session.scalars(one.execution_options(populate_existing=True)).one_or_none()


def due(session: Session) -> Sequence[Row[str, str]]:
    """(id, project) of the experiments of all projects that have something to be done, oldest first.

    What is next is a function of what has ended: without a trial whose end has not been noted there is nothing to do.
    """
    awaited = select(Trial.number).where(Trial.experiment_id == Experiment.id, Trial.outcome.is_(None))
    trains = select(Job.id).where(Job.id == Trial.job_id, Job.state.not_in(ENDED_JOBS))
    moved = or_(Experiment.has_pending, Experiment.state != "running", awaited.where(~trains.exists()).exists())
    query = select(Experiment.id, Experiment.project_id).where(Experiment.state.in_(OPEN), moved)
    return session.execute(query.order_by(Experiment.id)).all()


def trials(session: Session, experiment_id: str) -> Sequence[Trial]:
    """By number."""
    statement = select(Trial).where(Trial.experiment_id == experiment_id).order_by(Trial.number)
    return session.scalars(statement.execution_options(populate_existing=True)).all()


def awaited_trials(session: Session, experiment_id: str) -> Sequence[Trial]:
    """Trials whose end has not been noted, by number."""
    awaited = select(Trial).where(Trial.experiment_id == experiment_id, Trial.outcome.is_(None))
    return session.scalars(awaited.order_by(Trial.number)).all()


def count_trials(session: Session, experiment_id: str) -> int:
    """How many trials the experiment has; their numbers count from 0 on without a gap."""
    return session.scalar(select(func.count()).where(Trial.experiment_id == experiment_id)) or 0


def set_outcome(session: Session, experiment_id: str, number: int, outcome: dict[str, Any]) -> None:
    """Keep what a trial came to, unless that was done before."""
    noted = update(Trial).where(Trial.experiment_id == experiment_id, Trial.number == number, Trial.outcome.is_(None))
    session.execute(noted.values(outcome=outcome).execution_options(synchronize_session=False))


def jobs_of(session: Session, trials: Sequence[Trial]) -> dict[str, Job]:
    """Those of the trials' jobs that are still there, as they are now."""
    ids = [trial.job_id for trial in trials if trial.job_id is not None]
    statement = select(Job).where(Job.id.in_(ids)).execution_options(populate_existing=True)
    return {job.id: job for job in session.scalars(statement)}


def delete_experiment(session: Session, experiment: Experiment) -> None:
    """The row and its trials; the jobs stay."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.resource_id == experiment.id))
    session.delete(experiment)
