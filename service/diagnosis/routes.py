"""HTTP of a diagnosis: live while the job runs, final at its end."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Response

from service.auth import Reader
from service.context import Service
from service.database import reading
from service.diagnosis.schemas import DiagnosisOut
from service.diagnosis.service import record_of
from service.jobs import service as jobs
from service.jobs.removed import check_there
from service.metrics.repository import count_superseded, superseded_ranges
from service.metrics.routes import etag
from service.metrics.service import finite
from service.pagination import NOT_MODIFIED
from trainkit.diagnose.diagnosis import EDITION, diagnose

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])


@router.get(
    "/diagnosis",
    response_model=DiagnosisOut,
    responses=NOT_MODIFIED,
    summary="What is wrong with the run, the numbers that show it, and specs to try next",
)
def get_diagnosis(
    job_id: str, who: Reader, context: Service, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    with reading(context.sessions) as session:
        job = jobs.find(session, who, job_id)
        check_there(job, "metrics")
        superseded = count_superseded(superseded_ranges(session, job_id))
        tag = etag(job_id, job.next_seq, superseded, job.state, job.evaluation is not None, EDITION)
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if if_none_match == tag:
            return Response(status_code=304, headers=headers)
        record = record_of(session, job)
    body = DiagnosisOut.model_validate(finite(diagnose(record).as_dict()))
    return Response(body.model_dump_json(), media_type="application/json", headers=headers)
