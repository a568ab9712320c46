"""All SQL of recommendations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.jobs.states import ENDED
from service.jobs.tables import Job
from service.recommendations.tables import Recommendation


def get(session: Session, job_id: str) -> Recommendation | None:
    """Return the recommendation that the job was made from; None for another job."""
    return session.get(Recommendation, job_id)


def add(session: Session, recommendation: Recommendation) -> None:
    """Insert a recommendation."""
    session.add(recommendation)


def unmeasured(session: Session, project_id: str, job_id: str | None = None) -> Sequence[tuple[Recommendation, Job]]:
    """Return recommendations whose job has ended and whose effect was not measured yet, with the job."""
    statement = select(Recommendation, Job).join(Job, Job.id == Recommendation.job_id)
    statement = statement.where(
        Recommendation.project_id == project_id, Recommendation.outcome.is_(None), Job.state.in_(ENDED)
    )
    if job_id is not None:
        statement = statement.where(Recommendation.job_id == job_id)
    return [(recommendation, job) for recommendation, job in session.execute(statement)]


def set_outcome(session: Session, job_id: str, measured: dict[str, Any]) -> None:
    """Store the measured effect, unless it was stored before: another process has measured the same."""
    session.execute(
        update(Recommendation)
        .where(Recommendation.job_id == job_id, Recommendation.outcome.is_(None))
        .values(outcome=measured["outcome"], measured=measured)
        .execution_options(synchronize_session=False)
    )


def counts(session: Session, project_id: str) -> Sequence[tuple[int, str, str | None, int]]:
    """Return (ruleset version, code, outcome, count), sorted."""
    by = (Recommendation.ruleset_version, Recommendation.code, Recommendation.outcome)
    statement = select(*by, func.count()).where(Recommendation.project_id == project_id).group_by(*by)
    found = [(version, code, outcome, count) for version, code, outcome, count in session.execute(statement)]
    return sorted(found, key=lambda row: (row[0], row[1], row[2] or ""))
