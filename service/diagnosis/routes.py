"""HTTP of a diagnosis: live while the job runs, final at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response

from service.auth import Reader
from service.conditional_requests import tag_matches
from service.context import Service
from service.database import reading
from service.diagnosis.schemas import DiagnosisOut
from service.diagnosis.service import attainable_of, record_of
from service.errors import HttpProblem
from service.jobs import service as jobs
from service.jobs.history_routes import HARMLESS, PNG
from service.jobs.retention_status import check_not_purged
from service.metrics.repository import count_superseded, superseded_ranges
from service.metrics.routes import etag
from service.metrics.service import finite
from service.pagination import NOT_MODIFIED
from service.proxy_headers import root_path_of
from trainkit.diagnose.diagnosis import RULESET_VERSION, diagnose
from trainkit.diagnose.record import Record

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])


@dataclass(frozen=True, slots=True)
class DiagnosisInput:
    """The record to diagnose, None when the client has the current diagnosis already, and its ETag."""

    record: Record | None
    tag: str

    @property
    def headers(self) -> dict[str, str]:
        return {"ETag": self.tag, "Cache-Control": "no-cache"}


def diagnosis_input(
    job_id: str, who: Reader, context: Service, if_none_match: Annotated[str | None, Header()] = None
) -> DiagnosisInput:
    """Read the job's record and the ETag of its diagnosis from one snapshot."""
    # a session of its own: diagnosing and drawing take a while, and hold no connection
    with reading(context.sessions) as session:
        job = jobs.find(session, who, job_id)
        check_not_purged(job, "metrics")
        superseded = count_superseded(superseded_ranges(session, job_id))
        found = attainable_of(session, job)
        measured = None if found is None else (found.key, found.limit_seconds)
        tag = etag(job_id, job.next_seq, superseded, job.state, job.evaluation is not None, measured, RULESET_VERSION)
        return DiagnosisInput(None if tag_matches(if_none_match, tag) else record_of(session, job), tag)


About = Annotated[DiagnosisInput, Depends(diagnosis_input)]


@router.get(
    "/diagnosis",
    response_model=DiagnosisOut,
    responses=NOT_MODIFIED,
    summary="What is wrong with the run, the numbers that show it, and specs to try next",
)
def get_job_diagnosis(job_id: str, about: About, request: Request) -> Response:
    if about.record is None:
        return Response(status_code=304, headers=about.headers)
    found = finite(diagnose(about.record).as_dict())
    for index, verdict in enumerate(found["verdicts"]):
        verdict["plot"] = f"{root_path_of(request.scope)}/v1/jobs/{job_id}/diagnosis/{index}.png"
    body = DiagnosisOut.model_validate(found)
    return Response(body.model_dump_json(), media_type="application/json", headers=about.headers)


@router.get(
    "/diagnosis/{index}.png",
    response_class=Response,
    responses={**PNG, **NOT_MODIFIED},
    summary="The evidence of one of the verdicts as a picture",
)
def get_diagnosis_plot(job_id: str, index: int, about: About) -> Response:
    if about.record is None:
        return Response(status_code=304, headers=about.headers)
    # matplotlib takes 60 MB: imported only by processes that draw
    from trainkit.plots.evidence import evidence

    verdicts = diagnose(about.record).verdicts
    if not 0 <= index < len(verdicts):
        detail = f"The diagnosis has {len(verdicts)} verdicts, counted from 0; there is none at {index}."
        raise HttpProblem(404, "not_found", detail)
    picture = evidence(verdicts[index].as_dict(), about.record)
    return Response(picture, media_type="image/png", headers={**HARMLESS, **about.headers})
