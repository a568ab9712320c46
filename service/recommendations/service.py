"""Rules of prescriptions: when an effect is measured, and what the scorecard counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from service.database import reading
from service.jobs.states import ENDED
from service.jobs.tables import Job
from service.metrics.series import Wanted, collect
from service.recommendations import effect, repository
from service.recommendations.tables import Recommendation
from trainkit.diagnose.estimates import wilson_interval


def best_of(session: Session, job_id: str) -> dict[str, dict[str, Any]]:
    """`effect.best` of a job's log."""
    return effect.best(collect(session, job_id, Wanted(effect.NAMES)))


def measure(session: Session, prescription: Recommendation, job: Job) -> dict[str, Any]:
    """What came of a job that has ended. Its log must still be there."""
    measured = effect.told(prescription.compared, job.state, job.error, best_of(session, job.id))
    return {**measured, "expected_after": job.metrics_best.get(prescription.expected["metric"])}


def freeze(session: Session, job: Job) -> None:
    """Measure before the job's log goes: whatever removes it calls this in the same transaction."""
    prescription = repository.get(session, job.id)
    if prescription is not None and prescription.outcome is None and job.state in ENDED:
        repository.keep(session, job.id, measure(session, prescription, job))


def settle(sessions: sessionmaker[Session], project_id: str, job_id: str | None = None) -> None:
    """Measure what has ended and was not measured yet. An ended job changes no more, so once is enough."""
    with reading(sessions) as session:
        found = [(p.job_id, measure(session, p, job)) for p, job in repository.unmeasured(session, project_id, job_id)]
    if found:
        with sessions.begin() as session:
            for measured_job, measured in found:
                repository.keep(session, measured_job, measured)


def tally(rows: Iterable[tuple[str | None, int]]) -> dict[str, Any]:
    """Counts of outcomes (None: has not ended) and the hit rate: improved / (improved + within_noise + worse)."""
    counted: dict[str, int] = dict.fromkeys(effect.OUTCOMES, 0)
    made = 0
    for outcome, count in rows:
        made += count
        if outcome is not None:
            counted[outcome] += count
    told = counted["improved"] + counted["within_noise"] + counted["worse"]
    return {
        "prescriptions": made,
        "ended": sum(counted.values()),
        **counted,
        "hit_rate": counted["improved"] / told if told else None,
        "hit_rate_interval": wilson_interval(counted["improved"] / told, told) if told else None,
    }


def scorecard(session: Session, project_id: str) -> dict[str, Any]:
    """Tallies in all, by edition of the rules and in it by code."""
    rows = repository.counts(session, project_id)
    return {
        "all": tally((outcome, count) for _, _, outcome, count in rows),
        "editions": [
            {
                "edition": edition,
                "all": tally((o, n) for e, _, o, n in rows if e == edition),
                "codes": {
                    code: tally((o, n) for e, c, o, n in rows if (e, c) == (edition, code))
                    for code in dict.fromkeys(c for e, c, _, _ in rows if e == edition)
                },
            }
            for edition in sorted({row[0] for row in rows}, reverse=True)
        ],
    }
