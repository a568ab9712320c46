"""HTTP of recommendations: the one that a job was made from, its measured effect, and the scorecard."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from service.auth import Reader
from service.conditional_requests import tag_matches
from service.context import Service
from service.database import reading
from service.errors import HttpProblem
from service.jobs import service as jobs
from service.metrics.routes import etag
from service.pagination import NOT_MODIFIED
from service.recommendations import repository, service
from service.recommendations.schemas import RecommendationOut, ScorecardOut
from service.recommendations.tables import Recommendation

router = APIRouter(prefix="/v1", tags=["jobs"])
IfNoneMatch = Annotated[str | None, Header()]
COUNTED = ("improved", "within_noise", "worse")


@router.get(
    "/jobs/{job_id}/recommendation",
    response_model=RecommendationOut,
    responses=NOT_MODIFIED,
    summary="The recommendation that a job was made from, and its effect",
)
def get_job_recommendation(job_id: str, who: Reader, context: Service, if_none_match: IfNoneMatch = None) -> Response:
    """What the diagnosis of the parent job proposed, the effect that it expected, and once this job has ended, the
    effect that was measured. 404 for a job that was not submitted with `from_diagnosis`.
    """
    # sessions of its own: it only reads, but for the first time after a job's end, when the effect is written
    with reading(context.sessions) as session:
        jobs.find(session, who, job_id)
    service.measure_ended(context.sessions, who.project_id, job_id)
    with reading(context.sessions) as session:
        jobs.find(session, who, job_id)
        found = repository.get(session, job_id)
    if found is None:
        hint = "Jobs that were submitted with `from_diagnosis` have one."
        raise HttpProblem(404, "not_found", f"The job {job_id!r} was not made from a recommendation. {hint}")
    return _tagged(RecommendationOut.model_validate(as_json(found)), etag(job_id, found.outcome), if_none_match)


@router.get(
    "/diagnosis/scorecard",
    response_model=ScorecardOut,
    responses=NOT_MODIFIED,
    summary="How often recommendations helped, by verdict",
)
def get_diagnosis_scorecard(who: Reader, context: Service, if_none_match: IfNoneMatch = None) -> Response:
    """Counts of the project's recommendations by outcome: improved, within noise, worse. In all, and by version of the
    rules and by verdict.
    """
    # sessions of its own, as above
    service.measure_ended(context.sessions, who.project_id)
    with reading(context.sessions) as session:
        counted = service.scorecard(session, who.project_id)
    return _tagged(ScorecardOut.model_validate(counted), etag(who.project_id, counted), if_none_match)


def as_json(row: Recommendation) -> dict[str, Any]:
    """Map a row to the wire format."""
    measured = row.measured
    return {
        "job": row.job_id,
        "source": row.source_job,
        "code": row.code,
        "ruleset_version": row.ruleset_version,
        "patch": row.patch,
        "expected": row.expected,
        "compared": row.compared,
        "measured": measured
        and {**measured, "improved": row.outcome == "improved" if row.outcome in COUNTED else None},
    }


def _tagged(body: RecommendationOut | ScorecardOut, tag: str, if_none_match: str | None) -> Response:
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if tag_matches(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    return Response(body.model_dump_json(), media_type="application/json", headers=headers)
