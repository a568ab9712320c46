"""HTTP of exports: the whole log as CSV, Parquet or a TensorBoard event file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session, sessionmaker

from service.auth import Reader
from service.conditional_requests import tag_matches
from service.context import Service
from service.database import reading
from service.jobs import service as jobs
from service.jobs.retention_status import check_not_purged
from service.jobs.tables import Job
from service.metrics.exports import Export, as_csv, as_events, as_parquet
from service.metrics.repository import count_superseded, superseded_ranges
from service.metrics.routes import Names, etag, parse_names
from service.pagination import NOT_MODIFIED

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["metrics"])
CSV_TYPE, PARQUET_TYPE, EVENTS_TYPE = "text/csv", "application/vnd.apache.parquet", "application/octet-stream"
Write = Callable[[sessionmaker[Session], Export], Iterator[bytes] | Iterator[str]]


@dataclass(frozen=True, slots=True)
class Download:
    """An export that somebody download for, and the ETag of what they have."""

    sessions: sessionmaker[Session]
    export: Export
    known: str | None

    def answer(self, name: str, media_type: str, write: Write) -> Response:
        """The file, or 304."""
        export = self.export
        tag = etag(media_type, export.job_id, export.until, count_superseded(export.ranges), export.names)
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if tag_matches(self.known, tag):
            return Response(status_code=304, headers=headers)
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return StreamingResponse(write(self.sessions, export), media_type=media_type, headers=headers)


def find_download(
    job_id: str,
    who: Reader,
    context: Service,
    names: Names = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Download:
    """The log as it is now. 404 for a stranger's job, 410 when retention has removed it."""
    # the export is written while it is sent, with a session a piece: none is held while the client reads
    with reading(context.sessions) as session:
        job = jobs.find(session, who, job_id)
        check_not_purged(job, "metrics")
        export = export_of(session, job, parse_names(names))
    return Download(context.sessions, export, if_none_match)


def export_of(session: Session, job: Job, names: frozenset[str] | None = None) -> Export:
    """The log of a job as it is now; `names` None for all series."""
    ranges = superseded_ranges(session, job.id)
    return Export(job.id, job.next_seq - 1, names, ranges, job.created_at.timestamp())


RequestedDownload = Annotated[Download, Depends(find_download)]


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
def get_job_metrics_csv(job_id: str, download: RequestedDownload) -> Response:
    """A row for each logged value, superseded ones included. 410 when retention has removed the log."""
    return download.answer(f"{job_id}-metrics.csv", f"{CSV_TYPE}; charset=utf-8", as_csv)


@router.get(
    "/metrics.parquet",
    response_class=StreamingResponse,
    responses=file_of(PARQUET_TYPE, "Parquet, the CSV's columns"),
    summary="The whole log as Parquet",
)
def get_job_metrics_parquet(job_id: str, download: RequestedDownload) -> Response:
    """The columns of the CSV file, with types. 410 when retention has removed the log."""
    return download.answer(f"{job_id}-metrics.parquet", PARQUET_TYPE, as_parquet)


@router.get(
    "/metrics.tfevents",
    response_class=StreamingResponse,
    responses=file_of(EVENTS_TYPE, "An event file: put it into a folder of its own and point TensorBoard at that"),
    summary="The rows that count as a TensorBoard event file",
)
def get_job_metrics_tensorboard(job_id: str, download: RequestedDownload) -> Response:
    """One file, for a folder that TensorBoard is pointed at. Superseded rows are left out. 410 when retention has
    removed the log.
    """
    # TensorBoard knows its files by this very word in the name
    return download.answer(f"events.out.tfevents.{int(download.export.begun)}.{job_id}", EVENTS_TYPE, as_events)
