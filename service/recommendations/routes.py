"""HTTP of prescriptions: what a job was made for and what came of it, and the scorecard of all of them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from service.auth import Reader
from service.context import Service
from service.database import reading
from service.errors import Problem
from service.jobs import service as jobs
from service.metrics.routes import etag
from service.pagination import NOT_MODIFIED
from service.recommendations import repository, service
from service.recommendations.schemas import PrescriptionOut, ScorecardOut
from service.recommendations.tables import Recommendation

router = APIRouter(prefix="/v1", tags=["jobs"])
IfNoneMatch = Annotated[str | None, Header()]
COUNTED = ("improved", "within_noise", "worse")


@router.get(
    "/jobs/{job_id}/prescription",
    response_model=PrescriptionOut,
    responses=NOT_MODIFIED,
    summary="What a job from a diagnosis was made for, and what came of it",
)
def get_prescription(job_id: str, who: Reader, context: Service, if_none_match: IfNoneMatch = None) -> Response:
    with reading(context.sessions) as session:
        jobs.find(session, who, job_id)
    service.settle(context.sessions, who.project_id, job_id)
    with reading(context.sessions) as session:
        jobs.find(session, who, job_id)
        found = repository.get(session, job_id)
    if found is None:
        hint = "Jobs that were submitted with `from_diagnosis` have one."
        raise Problem(404, "not_found", f"The job {job_id!r} was not made from a diagnosis. {hint}")
    return _tagged(PrescriptionOut.model_validate(shown(found)), etag(job_id, found.outcome), if_none_match)


@router.get(
    "/diagnosis/scorecard",
    response_model=ScorecardOut,
    responses=NOT_MODIFIED,
    summary="How often what a diagnosis prescribed has helped, by verdict",
)
def get_scorecard(who: Reader, context: Service, if_none_match: IfNoneMatch = None) -> Response:
    service.settle(context.sessions, who.project_id)
    with reading(context.sessions) as session:
        counted = service.scorecard(session, who.project_id)
    return _tagged(ScorecardOut.model_validate(counted), etag(who.project_id, counted), if_none_match)


def shown(row: Recommendation) -> dict[str, Any]:
    """The row as scripts read it."""
    measured = row.measured
    return {
        "job": row.job_id,
        "source": row.source_job,
        "code": row.code,
        "edition": row.ruleset_version,
        "patch": row.patch,
        "expected": row.expected,
        "compared": row.compared,
        "measured": measured
        and {**measured, "improved": row.outcome == "improved" if row.outcome in COUNTED else None},
    }


def _tagged(body: PrescriptionOut | ScorecardOut, tag: str, if_none_match: str | None) -> Response:
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if if_none_match == tag:
        return Response(status_code=304, headers=headers)
    return Response(body.model_dump_json(), media_type="application/json", headers=headers)
