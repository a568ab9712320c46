"""The live stream of a job (server-sent events): the same rows by the same cursor as polling, pushed.

An id is `<metric seq>.<event seq>.<log seq>`: the positions in all three, so that a reader who comes back misses and
repeats nothing. What an id leaves out is told from its beginning.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import anyio
from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy import select

from service.auth import Reader
from service.context import Context, Service
from service.database import reading
from service.errors import Finished, Problem
from service.jobs import repository
from service.jobs import service as jobs
from service.jobs.schemas import event_out
from service.jobs.states import ENDED
from service.jobs.tables import Job, JobEvent
from service.logs.service import LoggedLine, Wanted
from service.logs.service import read as read_lines
from service.metrics.routes import LOOK_AGAIN
from service.metrics.service import as_wire, read

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["metrics"])
ROWS_A_MESSAGE = 500
EVENTS_A_LOOK = 100
LINES_A_LOOK = 200
EVERY_LINE = Wanted()
CURSOR = re.compile(r"^(\d{1,18})(?:\.(\d{1,18}))?(?:\.(\d{1,18}))?(\.end)?$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """How far a reader has come."""

    metric: int = 0
    event: int = 0
    log: int = 0

    def __str__(self) -> str:
        return f"{self.metric}.{self.event}.{self.log}"


def opening(
    job_id: str,
    who: Reader,
    context: Service,
    after: Annotated[str | None, Query(max_length=64, description="A metric seq, or an id of this stream.")] = None,
    last_event_id: Annotated[str | None, Header(max_length=64)] = None,
) -> Position:
    """Where to begin. 404 for a stranger's job; 204 for a reader who has seen the end."""
    cursor = last_event_id or after or "0"
    match = CURSOR.fullmatch(cursor)
    if match is None:
        raise Problem(422, "bad_cursor", f"{cursor!r} is not a position: send the id of the last event you saw.")
    with reading(context.sessions) as session:
        jobs.find(session, who, job_id)
    if match.group(4):
        raise Finished
    return Position(*(int(number or 0) for number in match.groups()[:3]))


@dataclass(frozen=True, slots=True)
class News:
    """What came since a position. `end` only when all of it has been told."""

    events: list[JobEvent] = field(default_factory=list)
    lines: list[LoggedLine] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    last_events: list[JobEvent] = field(default_factory=list)
    """The job's end and what came after it: told after the last row."""
    end: dict[str, Any] | None = None


@router.get("/stream", response_class=EventSourceResponse, summary="Metrics, events and log lines as they come (SSE)")
async def stream(
    job_id: str, context: Service, start: Annotated[Position, Depends(opening)]
) -> AsyncIterator[ServerSentEvent]:
    position = start
    while True:
        news = await to_thread.run_sync(_look, context, job_id, position)
        for event in news.events:
            position = replace(position, event=event.seq)
            yield _message(event, position)
        for line in news.lines:
            position = replace(position, log=line.seq)
            # `message` is what the text was called before there were logs of all attempts
            yield ServerSentEvent(data={**line.as_json(), "message": line.line.text}, event="log", id=str(position))
        if news.rows:
            position = replace(position, metric=news.rows[-1]["seq"])
            yield ServerSentEvent(data=news.rows, event="metric", id=str(position))
        for event in news.last_events:
            position = replace(position, event=event.seq)
            yield _message(event, position)
        if news.end is not None:
            yield ServerSentEvent(data=news.end, event="end", id=f"{position}.end")
            return
        if not (news.events or news.lines or news.rows):
            await anyio.sleep(LOOK_AGAIN)


def _message(event: JobEvent, position: Position) -> ServerSentEvent:
    return ServerSentEvent(
        data=event_out(event).model_dump(mode="json", by_alias=True), event="event", id=str(position)
    )


def _look(context: Context, job_id: str, position: Position) -> News:
    """One short session a look; nothing more is read while the job's counters stand still."""
    numbers = (Job.next_seq, Job.next_event_seq, Job.next_log_seq)
    counters = select(*numbers, Job.removed, Job.state, Job.stop_reason).where(Job.id == job_id)
    with reading(context.sessions) as session:
        job = session.execute(counters).one_or_none()
        if job is None:
            return News(end={"state": "deleted", "stop_reason": None})
        gone = job.removed or {}
        events: list[JobEvent] = []
        lines: list[LoggedLine] = []
        rows: list[dict[str, Any]] = []
        if position.event < job.next_event_seq - 1:
            events = list(repository.events_after(session, job_id, position.event, EVENTS_A_LOOK))
        if position.log < job.next_log_seq - 1 and "logs" not in gone:
            lines = read_lines(session, job_id, job.next_log_seq - 1, EVERY_LINE, position.log, LINES_A_LOOK).lines
        if position.metric < job.next_seq - 1 and "metrics" not in gone:
            rows = [as_wire(entry) for entry in read(session, job_id, position.metric, limit=ROWS_A_MESSAGE)]
    ended_at = next((place for place, event in enumerate(events) if event.to_state in ENDED), len(events))
    told_first = events[:ended_at]
    all_told = (
        len(events) < EVENTS_A_LOOK
        and ("logs" in gone or (lines[-1].seq if lines else position.log) >= job.next_log_seq - 1)
        and ("metrics" in gone or (rows[-1]["seq"] if rows else position.metric) >= job.next_seq - 1)
    )
    if job.state not in ENDED or not all_told:
        # an event of the end waits until all rows have been told: the job has ended, so it will still be there
        return News(told_first, lines, rows)
    end = {"state": job.state, "stop_reason": job.stop_reason}
    return News(told_first, lines, rows, events[ended_at:], end)
