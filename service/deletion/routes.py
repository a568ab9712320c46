"""HTTP of deletion: jobs and datasets."""

from __future__ import annotations

from fastapi import APIRouter

from service.auth import Writer
from service.context import Service
from service.deletion import service

router = APIRouter(prefix="/v1")


@router.delete("/jobs/{job_id}", status_code=204, tags=["jobs"], summary="Delete an ended job; its models stay")
def delete_job(job_id: str, who: Writer, context: Service) -> None:
    service.delete_job(context, who, job_id)


@router.delete(
    "/datasets/{dataset_id}", status_code=204, tags=["datasets"], summary="Delete a dataset that nothing uses"
)
def delete_dataset(dataset_id: str, who: Writer, context: Service, force: bool = False) -> None:
    service.delete_dataset(context, who, dataset_id, force=force)
