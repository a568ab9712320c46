"""HTTP of actions on many jobs."""

from __future__ import annotations

from fastapi import APIRouter

from service.auth import Writer
from service.bulk import service
from service.bulk.schemas import BulkIn, BulkLabelIn, BulkOut, BulkStopIn
from service.context import Service
from service.request_sessions import SessionRoute

router = APIRouter(prefix="/v1", tags=["jobs"], route_class=SessionRoute)


@router.post("/jobs:stop", response_model=BulkOut, summary="Stop many jobs gracefully")
def stop_jobs(who: Writer, context: Service, body: BulkStopIn) -> BulkOut:
    """Each job by the rules of `POST /v1/jobs/{job_id}/stop`. Safe to repeat: what has ended stays as it ended."""
    return service.stop(context, who, body)


@router.post("/jobs:cancel", response_model=BulkOut, summary="Cancel many jobs")
def cancel_jobs(who: Writer, context: Service, body: BulkIn) -> BulkOut:
    """Each job by the rules of `POST /v1/jobs/{job_id}/cancel`. Safe to repeat."""
    return service.cancel(context, who, body)


@router.post("/jobs:delete", response_model=BulkOut, summary="Delete many ended jobs; their models stay")
def delete_jobs(who: Writer, context: Service, body: BulkIn) -> BulkOut:
    """Each job by the rules of `DELETE /v1/jobs/{job_id}`: one that has not ended is refused."""
    return service.delete(context, who, body)


@router.post("/jobs:label", response_model=BulkOut, summary="Set and remove labels of many jobs")
def label_jobs(who: Writer, context: Service, body: BulkLabelIn) -> BulkOut:
    """As `PATCH /v1/jobs/{job_id}` with `labels`, for each job."""
    return service.label(context, who, body)
