"""HTTP of job submission: a spec, or one that a diagnosis recommends."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.auth import Writer
from service.context import Service
from service.jobs import service as jobs
from service.jobs.routes import IdempotencyKey, created
from service.jobs.schemas import JobOut
from service.recommendations.submit import submit
from service.request_body import JOB_BODY, Document
from service.request_sessions import SessionRoute, WriteSession

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=SessionRoute)


@router.post("", status_code=201, response_model=JobOut, openapi_extra=JOB_BODY, summary="Submit a job")
def create_job(
    response: Response,
    who: Writer,
    document: Document,
    context: Service,
    session: WriteSession,
    idempotency_key: IdempotencyKey = None,
) -> JobOut:
    from_diagnosis = isinstance(document, dict) and "from_diagnosis" in document
    create = submit if from_diagnosis else jobs.create
    job, new = create(session, context, who, document, idempotency_key)
    return created(session, response, job, new=new)
