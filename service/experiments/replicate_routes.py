"""HTTP of comparisons between groups of jobs that repeat each other."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from service.auth import Reader
from service.errors import HttpProblem
from service.experiments.replicates import compare_replicates
from service.experiments.schemas import JobsComparisonOut
from service.jobs import repository
from service.jobs import service as jobs
from service.metrics.series_routes import JobIds, parse_job_ids
from service.request_sessions import ReadSession, SessionRoute
from trainkit.spec.metrics import split_metric

router = APIRouter(prefix="/v1/metrics", tags=["metrics"], route_class=SessionRoute)


@router.get(
    "/comparison",
    response_model=JobsComparisonOut,
    summary="Means over seeds and folds, and paired tests against a baseline",
)
def compare_jobs(
    who: Reader,
    session: ReadSession,
    job_ids: JobIds,
    metric: Annotated[
        str, Query(max_length=64, description="Such as val_accuracy, of the weights that each job kept.")
    ],
    baseline: Annotated[str | None, Query(max_length=64, description="A job among them; left out: the first.")] = None,
) -> dict[str, Any]:
    """Puts jobs whose specs differ in seeds and folds alone into one group, and compares each group with that of the
    baseline: jobs of the same dataset, split and seed are pairs. Where there are none, `not_compared` says why.

    The p-values are of Student's paired t-test, by Nadeau and Bengio's correction where the pairs are different cuts of
    the data, whose training parts overlap; `p_adjusted` is by Holm's method over the groups.
    """
    try:
        split_metric(metric)
    except ValueError as error:
        raise HttpProblem(422, "unknown_metric", f"{str(error)[:1].upper()}{str(error)[1:]}.") from None
    found = [jobs.find(session, who, job_id) for job_id in parse_job_ids(job_ids)]
    return compare_replicates(found, repository.datasets_of(session, found), metric, baseline)
