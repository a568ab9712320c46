"""HTTP of the files of a job."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Response
from fastapi.responses import FileResponse

from service.artifacts import service
from service.artifacts.schemas import ArtifactOut
from service.auth import Reader
from service.conditional_requests import tagged
from service.content_digests import repr_digest
from service.context import Context, Service
from service.database import reading
from service.jobs import service as jobs
from service.jobs.history_routes import HARMLESS
from service.jobs.tables import Artifact
from service.listing.filters import ExactFilter, NumberFilter, TextFilter, TimeFilter
from service.listing.in_memory import page_of
from service.listing.query import ListOf, ListQuery, SortField
from service.metrics.export_routes import Download, export_of
from service.metrics.exports import as_parquet
from service.metrics.plots import draw_curves, series_rows
from service.models import service as models
from service.models.single_file import SingleFileResponse
from service.pagination import NOT_MODIFIED, Page
from service.principal import Principal
from service.request_sessions import ReadSession, SessionRoute

router = APIRouter(prefix="/v1/jobs/{job_id}/artifacts", tags=["jobs"], route_class=SessionRoute)
FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        "description": "The file, with its own media type",
    },
    **NOT_MODIFIED,
}
ARTIFACTS = ListOf(
    Artifact.name,
    ArtifactOut,
    sorts=[SortField("name", Artifact.name)],
    filters=[
        TextFilter("name", Artifact.name),
        ExactFilter("media_type", Artifact.media_type, max_length=100),
        NumberFilter("bytes", Artifact.bytes),
        TimeFilter("created_at", Artifact.created_at),
    ],
    default_sort="name",
    default_limit=200,
)


@router.get("", response_model=Page[ArtifactOut], summary="Files of the job, by name")
def list_job_artifacts(
    job_id: str,
    who: Reader,
    context: Service,
    session: ReadSession,
    query: Annotated[ListQuery, Depends(ARTIFACTS.query)],
) -> Response:
    """What the worker stored, and `spec.yaml`, `evaluation.json`, `metrics.parquet`, `curves.svg`, `model.safetensors`
    and `model.onnx` as far as the job has them.
    """
    files = service.find_all(session, context, jobs.find(session, who, job_id))
    return query.respond(page_of(query, files, lambda file: file.name), artifact_out)


def artifact_out(file: service.ArtifactFile) -> ArtifactOut:
    """A file as clients see it."""
    return ArtifactOut(
        name=file.name, media_type=file.media_type, bytes=file.bytes, sha256=file.sha256, created_at=file.created_at
    )


@router.get("/{name}", response_class=FileResponse, responses=FILE, summary="One of those files")
async def get_job_artifact(
    job_id: str, name: str, who: Reader, context: Service, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """`spec.yaml` is the spec as submitted, and can be submitted again; `model.safetensors` is the model in one file, with
    its manifest in the metadata. A worker writes `model.onnx` when it is first asked for: 409 for a network that ONNX
    cannot express. Files that are stored can be read in parts with `Range`; `Repr-Digest` has the hash of the whole.
    """
    answer = await to_thread.run_sync(_answer, context, who, job_id, name, if_none_match)
    if isinstance(answer, Response):
        return answer
    path, headers = await models.onnx_file(context, who, answer)
    return FileResponse(path, media_type="application/octet-stream", headers={**HARMLESS, **headers})


def _answer(
    context: Context, who: Principal, job_id: str, name: str, if_none_match: str | None
) -> Response | models.StoredModel:
    """The file; for `model.onnx` its model."""
    # drawing and sending take a while, and hold no connection
    with reading(context.sessions) as session:
        job, file = service.find(session, context, who, job_id, name)
        if file.storage_key is not None:
            path = context.storage.local_path(file.storage_key)
            return FileResponse(path, media_type=file.media_type, headers={**HARMLESS, **repr_digest(file.sha256)})
        points = series_rows(session, job) if name == service.CURVES else []
        export = export_of(session, job)
    if file.content is not None:
        headers = {**HARMLESS, **repr_digest(file.sha256)}
        return tagged(Response(file.content, media_type=file.media_type, headers=headers))
    if name == service.METRICS:
        return Download(context.sessions, export, if_none_match).answer(name, file.media_type, as_parquet)
    if name == service.CURVES:
        return tagged(Response(draw_curves(job, points, "svg"), media_type=file.media_type, headers=HARMLESS))
    assert file.model is not None
    if name == service.ONNX:
        return file.model
    single = models.single_file_of(context, file.model)
    return SingleFileResponse(single, name, file.sha256, {**HARMLESS, **file.model.header})
