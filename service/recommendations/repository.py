"""SQL of prescriptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.jobs.states import ENDED
from service.jobs.tables import Job
from service.recommendations.tables import Recommendation


def get(session: Session, job_id: str) -> Recommendation | None:
    """What prescribed that job."""
    return session.get(Recommendation, job_id)


def unmeasured(session: Session, project_id: str, job_id: str | None = None) -> Sequence[tuple[Recommendation, Job]]:
    """Those whose job has ended, and whose effect nobody has asked for yet."""
    mine = select(Recommendation, Job).join(Job, Job.id == Recommendation.job_id)
    mine = mine.where(Recommendation.project_id == project_id, Recommendation.outcome.is_(None), Job.state.in_(ENDED))
    if job_id is not None:
        mine = mine.where(Recommendation.job_id == job_id)
    return [(prescription, job) for prescription, job in session.execute(mine)]


def keep(session: Session, job_id: str, measured: dict[str, Any]) -> None:
    """What was measured, once: who comes second has measured the same."""
    session.execute(
        update(Recommendation)
        .where(Recommendation.job_id == job_id, Recommendation.outcome.is_(None))
        .values(outcome=measured["outcome"], measured=measured)
        .execution_options(synchronize_session=False)
    )


def counts(session: Session, project_id: str) -> Sequence[tuple[int, str, str | None, int]]:
    """(edition, code, outcome, how many), in that order."""
    by = (Recommendation.ruleset_version, Recommendation.code, Recommendation.outcome)
    mine = select(*by, func.count()).where(Recommendation.project_id == project_id).group_by(*by)
    found = [(edition, code, outcome, count) for edition, code, outcome, count in session.execute(mine)]
    return sorted(found, key=lambda row: (row[0], row[1], row[2] or ""))
