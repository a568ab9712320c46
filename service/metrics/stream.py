"""The live stream of a job (server-sent events): the same rows by the same cursor as polling, pushed.

An id is `<metric seq>.<event seq>`: both logs' positions, so that a reader who comes back misses and repeats nothing.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from service.auth import Reader
from service.context import Context, Service
from service.errors import RESPONSES, Finished, Problem
from service.jobs import repository
from service.jobs import service as jobs
from service.jobs.schemas import event_wire
from service.jobs.states import ENDED
from service.metrics.routes import LOOK_AGAIN
from service.metrics.service import as_wire, read

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["metrics"], responses=RESPONSES)
ROWS_A_MESSAGE = 500
CURSOR = re.compile(r"^(\d{1,18})(?:\.(\d{1,18}))?(\.end)?$")


@dataclass(frozen=True, slots=True)
class Position:
    """How far a reader has come in both logs."""

    metric: int = 0
    event: int = 0

    def __str__(self) -> str:
        return f"{self.metric}.{self.event}"


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
    with context.sessions() as session:
        jobs.find(session, who, job_id)
    if match.group(3):
        raise Finished
    return Position(int(match.group(1)), int(match.group(2) or 0))


@router.get("/stream", response_class=EventSourceResponse, summary="Metrics and events as they come (SSE)")
async def stream(
    job_id: str, context: Service, start: Annotated[Position, Depends(opening)]
) -> AsyncIterator[ServerSentEvent]:
    position = start
    while True:
        rows, events, ended = await to_thread.run_sync(_news, context, job_id, position)
        for event in events:
            position = Position(position.metric, event["seq"])
            yield ServerSentEvent(data=event, event="event", id=str(position))
        if rows:
            position = Position(rows[-1]["seq"], position.event)
            yield ServerSentEvent(data=rows, event="metric", id=str(position))
        elif ended and not events:
            yield ServerSentEvent(data=ended, event="end", id=f"{position}.end")
            return
        if not rows and not events:
            await anyio.sleep(LOOK_AGAIN)


def _news(
    context: Context, job_id: str, position: Position
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any] | None]:
    """(new rows, new events, the end if there is one). The state is read first: what it promises is then complete."""
    with context.sessions() as session:
        job = session.get(repository.Job, job_id)
        if job is None:
            return [], [], {"state": "deleted"}
        ended = {"state": job.state, "stop_reason": job.stop_reason} if job.state in ENDED else None
        events = repository.events_after(session, job_id, position.event, 100)
        rows = read(session, job_id, position.metric, limit=ROWS_A_MESSAGE)
        return [as_wire(row) for row in rows], [event_wire(event) for event in events], ended
