"""HTTP of job submission: a spec, or one that a diagnosis recommends."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.auth import Writer
from service.context import Service
from service.database import reading
from service.jobs.routes import IdempotencyKey, created
from service.jobs.schemas import JobOut
from service.recommendations.submit import create
from service.request_body import JOB_BODY, Document
from service.request_sessions import SessionRoute

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=SessionRoute)


@router.post("", status_code=201, response_model=JobOut, openapi_extra=JOB_BODY, summary="Submit a job")
def create_job(
    response: Response,
    who: Writer,
    document: Document,
    context: Service,
    idempotency_key: IdempotencyKey = None,
) -> JobOut:
    # sessions of its own: reading and checking hold no lock
    job, new = create(context, who, document, idempotency_key)
    with reading(context.sessions) as session:
        return created(session, response, job, new=new)
