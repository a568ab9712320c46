"""HTTP of exports: the whole log as CSV, Parquet or a TensorBoard event file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session, sessionmaker

from service.auth import Reader
from service.context import Context, Service
from service.database import reading
from service.jobs import service as jobs
from service.jobs.removed import check_there
from service.keys.service import Principal
from service.metrics.exports import Export, as_csv, as_events, as_parquet
from service.metrics.repository import count_superseded, superseded_ranges
from service.metrics.routes import Names, etag, parse_names
from service.pagination import NOT_MODIFIED

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["metrics"])
KnownTag = Annotated[str | None, Header(alias="If-None-Match")]
CSV_TYPE, PARQUET_TYPE, EVENTS_TYPE = "text/csv", "application/vnd.apache.parquet", "application/octet-stream"
Write = Callable[[sessionmaker[Session], Export, float], Iterator[bytes] | Iterator[str]]


def file_of(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    """The answers of an export, for the API's description."""
    schema = {"type": "string"} if media_type.startswith("text") else {"type": "string", "format": "binary"}
    return {200: {"content": {media_type: {"schema": schema}}, "description": description}, **NOT_MODIFIED}


@router.get(
    "/metrics.csv",
    response_class=StreamingResponse,
    responses=file_of(CSV_TYPE, "CSV with a header line"),
    summary="The whole log as CSV",
)
def get_csv(job_id: str, who: Reader, context: Service, names: Names = None, known: KnownTag = None) -> Response:
    asked = (job_id, names, known)
    return _export(context, who, asked, "metrics.csv", f"{CSV_TYPE}; charset=utf-8", lambda s, e, _: as_csv(s, e))


@router.get(
    "/metrics.parquet",
    response_class=StreamingResponse,
    responses=file_of(PARQUET_TYPE, "Parquet, the CSV's columns"),
    summary="The whole log as Parquet",
)
def get_parquet(job_id: str, who: Reader, context: Service, names: Names = None, known: KnownTag = None) -> Response:
    asked = (job_id, names, known)
    return _export(context, who, asked, "metrics.parquet", PARQUET_TYPE, lambda s, e, _: as_parquet(s, e))


@router.get(
    "/metrics.tfevents",
    response_class=StreamingResponse,
    responses=file_of(EVENTS_TYPE, "An event file: put it into a folder of its own and point TensorBoard at that"),
    summary="The rows that count as a TensorBoard event file",
)
def get_events(job_id: str, who: Reader, context: Service, names: Names = None, known: KnownTag = None) -> Response:
    return _export(context, who, (job_id, names, known), "tfevents", EVENTS_TYPE, as_events)


def _export(
    context: Context,
    who: Principal,
    asked: tuple[str, str | None, str | None],
    kind: str,
    media_type: str,
    write: Write,
) -> Response:
    job_id, names, known = asked
    with reading(context.sessions) as session:
        job = jobs.find(session, who, job_id)
        check_there(job, "metrics")
        export = Export(job_id, job.next_seq - 1, parse_names(names))
        tag = etag(kind, job_id, export.until, count_superseded(superseded_ranges(session, job_id)), export.names)
        begun = job.created_at.timestamp()
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if known == tag:
        return Response(status_code=304, headers=headers)
    # TensorBoard knows its files by this very word in the name
    name = f"events.out.tfevents.{int(begun)}.{job_id}" if kind == "tfevents" else f"{job_id}-{kind}"
    headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return StreamingResponse(write(context.sessions, export, begun), media_type=media_type, headers=headers)
