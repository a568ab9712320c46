"""HTTP of deletion: jobs and datasets."""

from __future__ import annotations

from fastapi import APIRouter

from service.auth import Writer
from service.context import Service
from service.deletion import service
from service.registry.addresses import DatasetReference
from service.request_sessions import SessionRoute, WriteSession

router = APIRouter(prefix="/v1", route_class=SessionRoute)


@router.delete("/jobs/{job_id}", status_code=204, tags=["jobs"], summary="Delete an ended job; its models stay")
def delete_job(job_id: str, who: Writer, context: Service, session: WriteSession) -> None:
    """Deletes the job with its metrics, logs and files. 409 (`still_active`) while it has not ended."""
    service.delete_job(session, context, who, job_id)


@router.delete("/datasets/{dataset}", status_code=204, tags=["datasets"], summary="Delete a dataset that nothing uses")
def delete_dataset(
    reference: DatasetReference, who: Writer, context: Service, session: WriteSession, force: bool = False
) -> None:
    """Deletes the version, and its bytes when no other version has the same. Ended jobs keep the record of what they
    were trained on.

    409 while an alias points to it, or jobs that have not ended use it; `force=true` cancels those jobs.
    """
    if force:
        service.cancel_jobs_of_dataset(context, who, reference)  # before the session holds a connection
    service.delete_dataset(session, context, who, reference, force=force)
