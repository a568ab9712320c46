"""HTTP of the metric log: cursor polling, long-poll, series, CSV."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
from anyio import to_thread
from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from service.auth import Reader
from service.context import Context, Service
from service.database import reading
from service.jobs import service as jobs
from service.jobs.removed import check_there
from service.jobs.states import ENDED
from service.keys.service import Principal
from service.metrics.repository import count_superseded
from service.metrics.schemas import AllSeriesOut, MetricsOut, series_wire
from service.metrics.series import collect, downsample
from service.metrics.service import as_wire, read_page
from service.pagination import NOT_MODIFIED

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["metrics"])
LOOK_AGAIN = 0.25
"""Seconds between two looks of a waiting reader."""
Names = Annotated[str | None, Query(max_length=2000, description="Comma-separated: val_accuracy, or accuracy for all.")]
CSV_COLUMNS = ("seq", "attempt", "split", "name", "step", "epoch", "value", "at", "superseded")
CSV: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/csv": {"schema": {"type": "string"}}}, "description": "CSV with a header line"}
}


def parse_names(names: str | None) -> frozenset[str] | None:
    """The wanted names; None for all."""
    return frozenset(name.strip() for name in names.split(",") if name.strip()) if names else None


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What a reader wants."""

    job_id: str
    after: int
    limit: int
    names: frozenset[str] | None
    known_tag: str | None


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found. `body` is None when the reader has it already; `worth` says whether to answer at once."""

    tag: str
    body: bytes | None
    worth: bool


@router.get(
    "/metrics",
    response_model=MetricsOut,
    responses=NOT_MODIFIED,
    summary="The metric log by cursor; `wait` seconds for something new",
)
async def get_metrics(
    job_id: str,
    who: Reader,
    context: Service,
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    limit: Annotated[int, Query(ge=1, le=5000)] = 500,
    names: Names = None,
    wait: Annotated[float, Query(ge=0, le=25)] = 0,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    query = LogQuery(job_id, after, limit, parse_names(names), if_none_match)
    deadline = time.monotonic() + wait
    while True:
        look = await to_thread.run_sync(_look, context, who, query)
        if look.worth or time.monotonic() >= deadline:
            break
        await anyio.sleep(LOOK_AGAIN)
    headers = {"ETag": look.tag, "Cache-Control": "no-cache"}
    if look.body is None:
        return Response(status_code=304, headers=headers)
    return Response(look.body, media_type="application/json", headers=headers)


def _look(context: Context, who: Principal, query: LogQuery) -> Look:
    with reading(context.sessions) as session:
        job = jobs.find(session, who, query.job_id)
        check_there(job, "metrics")
        last, ended = job.next_seq - 1, job.state in ENDED
        marked = count_superseded(session, query.job_id)
        # the state that matters is whether more can come: a change from queued to running changes no row
        tag = etag(query.job_id, last, marked, ended, query.after, query.limit, query.names)
        if query.known_tag == tag:
            return Look(tag, None, worth=ended)
        page = read_page(session, query.job_id, query.after, limit=query.limit, names=query.names)
    done = ended and page.next >= last
    wire = {"data": [as_wire(row) for row in page.rows], "next": page.next, "done": done}
    return Look(tag, json.dumps(wire, allow_nan=False).encode(), worth=bool(page.rows) or ended)


def etag(*parts: Any) -> str:
    """A weak ETag of everything that an answer depends on."""
    shown = [sorted(part) if isinstance(part, frozenset) else part for part in parts]
    return f'W/"{hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:32]}"'


@router.get(
    "/metrics/series",
    response_model=AllSeriesOut,
    responses=NOT_MODIFIED,
    summary="Series for plots, down-sampled with extremes kept",
)
def get_series(
    job_id: str,
    who: Reader,
    context: Service,
    names: Names = None,
    max_points: Annotated[int, Query(ge=5, le=10_000)] = 1000,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    wanted = parse_names(names)
    with reading(context.sessions) as session:
        job = jobs.find(session, who, job_id)
        check_there(job, "metrics")
        tag = etag(job_id, job.next_seq, count_superseded(session, job_id), max_points, wanted)
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if if_none_match == tag:
            return Response(status_code=304, headers=headers)
        found = collect(session, job_id, wanted)
    series = {}
    for name, columns in found.items():
        kept = downsample(columns["value"], max_points)
        series[name] = series_wire({column: values[kept] for column, values in columns.items()})
    body = json.dumps({"series": series}, allow_nan=False)
    return Response(body, media_type="application/json", headers=headers)


@router.get("/metrics.csv", response_class=StreamingResponse, responses=CSV, summary="The whole log as CSV")
def get_csv(job_id: str, who: Reader, context: Service, names: Names = None) -> StreamingResponse:
    with reading(context.sessions) as session:
        check_there(jobs.find(session, who, job_id), "metrics")
    headers = {"Content-Disposition": f'attachment; filename="{job_id}-metrics.csv"'}
    lines = _csv_lines(context, job_id, parse_names(names))
    return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=headers)


def _csv_lines(context: Context, job_id: str, names: frozenset[str] | None) -> Iterator[str]:
    yield ",".join(CSV_COLUMNS) + "\r\n"
    after = 0
    while True:
        # a session for each page: none is held while the client reads
        with reading(context.sessions) as session:
            page = read_page(session, job_id, after, limit=5000, names=names)
        if page.next == after:
            return
        after = page.next
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        for row in page.rows:
            wire = as_wire(row) | {"value": repr(row.row.value)}
            writer.writerow([wire[column] for column in CSV_COLUMNS])
        yield buffer.getvalue()
