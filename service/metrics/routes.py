"""HTTP of the metric log: cursor polling, long-poll, series, CSV."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from math import isfinite
from typing import Annotated, Any

import anyio
from anyio import to_thread
from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from service.auth import Reader
from service.context import Context, Service
from service.errors import RESPONSES
from service.jobs import service as jobs
from service.jobs.states import ENDED
from service.keys.service import Principal
from service.metrics.series import downsample
from service.metrics.service import LoggedRow, as_wire, read

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["metrics"], responses=RESPONSES)
LOOK_AGAIN = 0.25
"""Seconds between two looks of a waiting reader."""
Names = Annotated[str | None, Query(max_length=2000, description="Comma-separated: val_accuracy, or accuracy for all.")]


def parse_names(names: str | None) -> frozenset[str] | None:
    """The wanted names; None for all."""
    return frozenset(name.strip() for name in names.split(",") if name.strip()) if names else None


@router.get("/metrics", summary="The metric log by cursor; `wait` seconds for something new")
async def get_metrics(
    job_id: str,
    response: Response,
    who: Reader,
    context: Service,
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    limit: Annotated[int, Query(ge=1, le=5000)] = 500,
    names: Names = None,
    wait: Annotated[float, Query(ge=0, le=25)] = 0,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Any:
    wanted = parse_names(names)
    deadline = time.monotonic() + wait
    while True:
        tag, rows, done = await to_thread.run_sync(_look, context, who, job_id, after, limit, wanted, if_none_match)
        if rows or done or time.monotonic() >= deadline:
            break
        await anyio.sleep(LOOK_AGAIN)
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if rows is None:
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return {"data": [as_wire(row) for row in rows], "next": rows[-1].seq if rows else after, "done": done and not rows}


def _look(
    context: Context,
    who: Principal,
    job_id: str,
    after: int,
    limit: int,
    names: frozenset[str] | None,
    known_tag: str | None,
) -> tuple[str, list[LoggedRow] | None, bool]:
    with context.sessions() as session:
        job = jobs.find(session, who, job_id)
        done = job.state in ENDED
        tag = f'W/"{job_id}:{job.next_seq - 1}:{job.state}:{after}:{limit}:{hash_names(names)}"'
        if known_tag == tag:
            return tag, None, done
        rows = read(session, job_id, after, limit=limit, names=names) if job.next_seq - 1 > after else []
        return tag, rows, done


def hash_names(names: frozenset[str] | None) -> str:
    """A short stable mark of a selection, for ETags."""
    return "-".join(sorted(names)) if names else "all"


@router.get("/metrics/series", summary="Series for plots, down-sampled with extremes kept")
def get_series(
    job_id: str,
    response: Response,
    who: Reader,
    context: Service,
    names: Names = None,
    max_points: Annotated[int, Query(ge=3, le=10_000)] = 1000,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Any:
    with context.sessions() as session:
        job = jobs.find(session, who, job_id)
        tag = f'W/"{job_id}:{job.next_seq - 1}:{max_points}:{hash_names(parse_names(names))}"'
        if if_none_match == tag:
            return Response(status_code=304, headers={"ETag": tag})
        rows = read(session, job_id, 0, limit=job.next_seq, names=parse_names(names))
    series: dict[str, list[LoggedRow]] = {}
    for row in rows:
        if not row.superseded:
            series.setdefault(f"{row.row.split}_{row.row.name}", []).append(row)
    response.headers["ETag"] = tag
    return {"series": {name: _points(downsample(points, max_points)) for name, points in sorted(series.items())}}


def _points(rows: list[LoggedRow]) -> dict[str, list[Any]]:
    return {
        "seq": [row.seq for row in rows],
        "step": [row.row.step for row in rows],
        "epoch": [row.row.epoch for row in rows],
        "value": [row.row.value if isfinite(row.row.value) else None for row in rows],
    }


@router.get("/metrics.csv", response_class=StreamingResponse, summary="The whole log as CSV")
def get_csv(job_id: str, who: Reader, context: Service, names: Names = None) -> StreamingResponse:
    with context.sessions() as session:
        jobs.find(session, who, job_id)
    headers = {"Content-Disposition": f'attachment; filename="{job_id}-metrics.csv"'}
    lines = _csv_lines(context, job_id, parse_names(names))
    return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=headers)


def _csv_lines(context: Context, job_id: str, names: frozenset[str] | None) -> Iterator[str]:
    columns = ["seq", "attempt", "split", "name", "step", "epoch", "value", "at", "superseded"]
    after = 0
    header = True
    while True:
        with context.sessions() as session:
            rows = read(session, job_id, after, limit=5000, names=names)
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        if header:
            writer.writerow(columns)
            header = False
        for row in rows:
            wire = as_wire(row) | {"value": repr(row.row.value)}
            writer.writerow([wire[column] for column in columns])
        yield buffer.getvalue()
        if not rows:
            return
        after = rows[-1].seq
