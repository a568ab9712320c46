"""HTTP of the log: text for people, JSON for scripts; by cursor, from the end, or waiting for more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import FileResponse, StreamingResponse

from service.auth import Reader
from service.context import Context, Service
from service.database import reading
from service.jobs import repository as jobs_repository
from service.jobs import service as jobs
from service.jobs.history_routes import HARMLESS, LOG
from service.jobs.retention_status import check_not_purged
from service.jobs.states import ENDED
from service.jobs.tables import Artifact
from service.logs.chunks import Level
from service.logs.schemas import LogsOut
from service.logs.service import LogFilter, LogPage, read, tail
from service.principal import Principal

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["logs"])
LINES_A_PAGE = 1000
TEXT_TYPE = "text/plain; charset=utf-8"
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": LogsOut,
        "content": {"text/plain": {"schema": {"type": "string"}}},
        "description": "Text, or with `Accept: application/json` or `format=json` lines with a cursor",
    }
}


@dataclass(frozen=True, slots=True)
class LogQuery:
    """A request for lines of a job's log."""

    job_id: str
    filter: LogFilter
    after: int
    limit: int | None
    tail: int | None
    as_json: bool


@dataclass(frozen=True, slots=True)
class LogAnswer:
    """Lines found by one query; `ready` says whether to answer at once."""

    page: LogPage
    done: bool
    ready: bool
    file: Artifact | None = None


@router.get(
    "/logs",
    response_class=Response,
    responses=ANSWERS,
    summary="Every line of every attempt; `wait` seconds for more, `tail` for the last ones",
)
async def get_job_logs(
    job_id: str,
    who: Reader,
    context: Service,
    attempt: Annotated[int | None, Query(ge=1, lt=2**31, description="Of this attempt alone.")] = None,
    level: Annotated[Level, Query(description="This level and worse ones.")] = "debug",
    contains: Annotated[str | None, Query(max_length=200, description="With this text in it, in any case.")] = None,
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    limit: Annotated[int | None, Query(ge=1, le=5000, description="Left out: text has all, JSON 1000.")] = None,
    wait: Annotated[float, Query(ge=0, le=25)] = 0,
    tail: Annotated[int | None, Query(ge=1, le=5000, description="Only the last so many.")] = None,
    format: Annotated[Literal["text", "json"] | None, Query(description="Left out: as `Accept` says.")] = None,
    accept: Annotated[str | None, Header()] = None,
) -> Response:
    """As plain text, or as JSON with a cursor: `next` is the `after` of the next request, and `done` says that no more
    lines come. `level`, `contains` and `attempt` select lines. 410 when retention has removed the log.
    """
    as_json = format == "json" or (format is None and prefers_json(accept or ""))
    query = LogQuery(job_id, LogFilter(attempt, level, contains or None), after, limit, tail, as_json)
    answer = await context.job_watcher.look_until(
        job_id, partial(_query, context, who, query), attrgetter("ready"), wait
    )
    headers = {**HARMLESS, "Cache-Control": "no-cache", "Trainkit-Next": str(answer.page.next)}
    if as_json:
        wire = {"data": [line.as_json() for line in answer.page.lines], "next": answer.page.next, "done": answer.done}
        return Response(json.dumps(wire), media_type="application/json", headers=headers)
    if answer.file is not None:
        path = context.storage.local_path(answer.file.storage_key)
        return FileResponse(path, media_type=TEXT_TYPE, headers=headers)
    if limit is None and tail is None:
        # the query has found where the log ended; what comes later is for the next request
        lines = _whole(context, query, answer.page.next)
        return StreamingResponse(lines, media_type=TEXT_TYPE, headers=headers)
    text = "".join(line.as_text() for line in answer.page.lines)
    return Response(text, media_type=TEXT_TYPE, headers=headers)


def prefers_json(accept: str) -> bool:
    """Whether JSON is named before plain text; weights are not read."""
    kinds = [kind.partition(";")[0].strip().lower() for kind in accept.split(",")]
    named = next((kind for kind in kinds if kind in ("application/json", "text/plain")), "")
    return named == "application/json"


def _query(context: Context, who: Principal, query: LogQuery) -> LogAnswer:
    # a session a look: none is held between the looks of a long-poll
    with reading(context.sessions) as session:
        job = jobs.find(session, who, query.job_id)
        check_not_purged(job, "logs")
        last, ended = job.next_log_seq - 1, job.state in ENDED
        whole_text = not query.as_json and query.limit is None and query.tail is None
        if whole_text and last == 0 and query.filter.everything:
            file = jobs_repository.artifact(session, query.job_id, LOG)
            if file is not None and context.storage.exists(file.storage_key):
                # a job of the time before lines were shipped
                return LogAnswer(LogPage([], 0), ended, ready=True, file=file)
        if query.tail is not None:
            page = tail(session, query.job_id, last, query.filter, query.after, query.tail)
        else:
            page = read(session, query.job_id, last, query.filter, query.after, query.limit or LINES_A_PAGE)
        if whole_text and page.lines:
            page = LogPage(page.lines, max(page.next, last))
    done = ended and page.next >= last
    return LogAnswer(page, done, ready=bool(page.lines) or ended)


def _whole(context: Context, query: LogQuery, until: int) -> Iterator[str]:
    after = query.after
    while after < until:
        # a session for each page: none is held while the client reads
        with reading(context.sessions) as session:
            page = read(session, query.job_id, until, query.filter, after, LINES_A_PAGE)
        yield "".join(line.as_text() for line in page.lines if line.seq <= until)
        after = page.next
