"""Rules of recommendations: when the effect of one is measured, and what the scorecard counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from service.database import reading
from service.jobs.states import ENDED
from service.jobs.tables import Job
from service.metrics.series import SeriesQuery, collect
from service.recommendations import effect, repository
from service.recommendations.tables import Recommendation
from trainkit.diagnose.estimates import wilson_interval


def best_of(session: Session, job_id: str) -> dict[str, dict[str, Any]]:
    """Return the best validation metrics of a job's log."""
    return effect.best_values(collect(session, job_id, SeriesQuery(effect.NAMES)))


def measure(session: Session, recommendation: Recommendation, job: Job) -> dict[str, Any]:
    """Measure the effect of a recommendation whose job has ended and still has its metric log."""
    measured = effect.measured_effect(recommendation.compared, job.state, job.error, best_of(session, job.id))
    return {**measured, "expected_after": job.metrics_best.get(recommendation.expected.get("metric", ""))}


def freeze(session: Session, job: Job) -> None:
    """Measure before the job's metric log is deleted, in the transaction that deletes it."""
    recommendation = repository.get(session, job.id)
    if recommendation is not None and recommendation.outcome is None and job.state in ENDED:
        repository.set_outcome(session, job.id, measure(session, recommendation, job))


def measure_ended(sessions: sessionmaker[Session], project_id: str, job_id: str | None = None) -> None:
    """Measure recommendations whose job has ended, each once: an ended job does not change."""
    with reading(sessions) as session:
        found = [(p.job_id, measure(session, p, job)) for p, job in repository.unmeasured(session, project_id, job_id)]
    if found:
        with sessions.begin() as session:
            for measured_job, measured in found:
                repository.set_outcome(session, measured_job, measured)


def count_outcomes(rows: Iterable[tuple[str | None, int]]) -> dict[str, Any]:
    """Counts of outcomes (None: has not ended) and the hit rate: improved / (improved + within_noise + worse)."""
    counted: dict[str, int] = dict.fromkeys(effect.OUTCOMES, 0)
    total = 0
    for outcome, count in rows:
        total += count
        if outcome is not None:
            counted[outcome] += count
    compared = counted["improved"] + counted["within_noise"] + counted["worse"]
    return {
        "recommendations": total,
        "ended": sum(counted.values()),
        **counted,
        "hit_rate": counted["improved"] / compared if compared else None,
        "hit_rate_interval": wilson_interval(counted["improved"] / compared, compared) if compared else None,
    }


def scorecard(session: Session, project_id: str) -> dict[str, Any]:
    """Count outcomes in all, by version of the ruleset, and by code in each version."""
    rows = repository.counts(session, project_id)
    return {
        "all": count_outcomes((outcome, count) for _, _, outcome, count in rows),
        "rulesets": [
            {
                "ruleset_version": version,
                "all": count_outcomes((o, n) for v, _, o, n in rows if v == version),
                "codes": {
                    code: count_outcomes((o, n) for v, c, o, n in rows if (v, c) == (version, code))
                    for code in dict.fromkeys(c for v, c, _, _ in rows if v == version)
                },
            }
            for version in sorted({row[0] for row in rows}, reverse=True)
        ],
    }
