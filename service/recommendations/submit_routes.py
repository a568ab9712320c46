"""HTTP of job submission: a spec, or one that a diagnosis recommends."""

from __future__ import annotations

from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from service.auth import Writer
from service.context import Service
from service.jobs import service as jobs
from service.jobs.routes import IdempotencyKey, created
from service.jobs.schemas import JobOut
from service.recommendations.submit import submit
from service.request_body import JOB_BODY, read_document

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post("", status_code=201, response_model=JobOut, openapi_extra=JOB_BODY, summary="Submit a job")
async def create_job(
    request: Request,
    response: Response,
    who: Writer,
    context: Service,
    idempotency_key: IdempotencyKey = None,
) -> JobOut:
    document = await read_document(request)
    from_diagnosis = isinstance(document, dict) and "from_diagnosis" in document
    create = submit if from_diagnosis else jobs.create
    job, new = await to_thread.run_sync(create, context, who, document, idempotency_key)
    return await to_thread.run_sync(partial(created, context, response, job, new=new))
