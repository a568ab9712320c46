"""The live stream of a job (server-sent events): the same rows by the same cursor as polling, pushed.

An id is `<metric seq>.<event seq>.<log seq>`: the positions in all three, so that a reader who comes back misses and
repeats nothing. What an id leaves out is told from its beginning.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import Response
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from service.auth import Reader
from service.context import Context, Service
from service.database import reading
from service.errors import Finished, HttpProblem
from service.event_stream import AWAY_SECONDS, PING_SECONDS, EventStream, stream_of
from service.jobs import repository
from service.jobs import service as jobs
from service.jobs.schemas import event_out
from service.jobs.states import ENDED
from service.jobs.tables import JobEvent
from service.logs.service import LogFilter, LoggedLine
from service.logs.service import read as read_lines
from service.metrics.service import page_slices
from service.metrics.wire import texts

log = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["metrics"])
ROWS_A_MESSAGE = 500
EVENTS_A_LOOK = 100
LINES_A_LOOK = 200
EVERY_LINE = LogFilter()
CURSOR = re.compile(r"^(\d{1,18})(?:\.(\d{1,18}))?(?:\.(\d{1,18}))?(\.end)?$", re.ASCII)


EVENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "metric": (
        "Rows of the metric log that are new, by rising `seq`.",
        {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/MetricRowOut"}},
    ),
    "event": ("A change of the job.", {"$ref": "#/components/schemas/EventOut"}),
    "log": ("A line that a process of the job wrote.", {"$ref": "#/components/schemas/StreamedLineOut"}),
    "end": ("The job has ended or was deleted; the stream closes.", {"$ref": "#/components/schemas/StreamEndOut"}),
}


@dataclass(frozen=True, slots=True)
class StreamPosition:
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
) -> StreamPosition:
    """Where to begin. 404 for a stranger's job; 204 for a reader who has seen the end."""
    cursor = last_event_id or after or "0"
    match = CURSOR.fullmatch(cursor)
    if match is None:
        raise HttpProblem(422, "bad_cursor", f"{cursor!r} is not a position: send the id of the last event you saw.")
    # a session a look: none is held while the stream waits
    with reading(context.sessions) as session:
        jobs.find(session, who, job_id)
    if match.group(4):
        raise Finished
    return StreamPosition(*(int(number or 0) for number in match.groups()[:3]))


@dataclass(frozen=True, slots=True)
class News:
    """What came since a position, ready to be sent, and the position after it."""

    messages: list[bytes]
    position: StreamPosition
    ended: bool = False
    """Everything has been sent, of a job that has ended."""


@router.get(
    "/stream",
    response_class=EventStream,
    responses={
        200: {"content": stream_of(EVENTS), "description": "The stream"},
        204: {"description": "This reader has seen the end"},
    },
    summary="Metrics, events and log lines as they come (SSE)",
)
async def stream_job(job_id: str, context: Service, start: Annotated[StreamPosition, Depends(opening)]) -> Response:
    """Server-sent events: `metric` with a list of rows, `event` with a change of the job, `log` with a line, and `end`
    with the job's last state, after which the stream closes. Comments keep it open in between.

    Begins with all there is. Send the last id as `Last-Event-ID`, or as `after`, to go on from there; after the end,
    that is 204, and a browser's `EventSource` does not come back.
    """
    return EventStream(follow(context, job_id, start))


async def follow(context: Context, job_id: str, position: StreamPosition) -> AsyncGenerator[bytes]:
    """All that there is from a position on, then all that comes, until the job's end has been told."""
    with context.job_watcher.watching(job_id) as watch:
        while True:
            known = watch.counters
            # who is at the same place gets the same answer: a thousand readers of one job are one look
            read = partial(_read_news, context.sessions, job_id, position)
            try:
                news = await context.job_watcher.share(("stream", job_id, position, known), read)
            except DBAPIError as error:
                log.warning("job=%s a stream waits for the database: %s", job_id, error.orig)
                await anyio.sleep(AWAY_SECONDS)
                continue
            for message in news.messages:
                yield message
            if news.ended:
                return
            position = news.position
            if not news.messages and not await watch.changed(known, PING_SECONDS):
                yield KEEPALIVE_COMMENT


def _read_news(sessions: sessionmaker[Session], job_id: str, position: StreamPosition) -> News:
    """One short session a look; nothing more is read while the job's counters stand still."""
    with reading(sessions) as session:
        found = repository.counters(session, [job_id])
        if not found:
            return _news(position, end={"state": "deleted", "stop_reason": None})
        job = found[0]
        purged = job.purged or {}
        events: list[JobEvent] = []
        lines: list[LoggedLine] = []
        rows: list[str] = []
        row_seq = position.metric
        if position.event < job.next_event_seq - 1:
            events = list(repository.events_after(session, job_id, position.event, EVENTS_A_LOOK))
        if position.log < job.next_log_seq - 1 and "logs" not in purged:
            lines = read_lines(session, job_id, job.next_log_seq - 1, EVERY_LINE, position.log, LINES_A_LOOK).lines
        if position.metric < job.next_seq - 1 and "metrics" not in purged:
            slices, row_seq = page_slices(session, job_id, position.metric, ROWS_A_MESSAGE)
            rows = [text for piece in slices for text in texts(piece)]
    ended_at = next((place for place, event in enumerate(events) if event.to_state in ENDED), len(events))
    all_sent = (
        len(events) < EVENTS_A_LOOK
        and ("logs" in purged or (lines[-1].seq if lines else position.log) >= job.next_log_seq - 1)
        and ("metrics" in purged or row_seq >= job.next_seq - 1)
    )
    if job.state not in ENDED or not all_sent:
        # an event of the end waits until all rows have been told: the job has ended, so it will still be there
        return _news(position, events[:ended_at], lines, (rows, row_seq))
    end = {"state": job.state, "stop_reason": job.stop_reason}
    return _news(position, events[:ended_at], lines, (rows, row_seq), events[ended_at:], end)


def _news(
    position: StreamPosition,
    events: Sequence[JobEvent] = (),
    lines: Sequence[LoggedLine] = (),
    metrics: tuple[Sequence[str], int] = ((), 0),
    last_events: Sequence[JobEvent] = (),
    end: dict[str, Any] | None = None,
) -> News:
    """The messages in their order: the job's end, and what came after it, follow its last row (as JSON, with its seq)."""
    messages = []
    rows, row_seq = metrics
    for event in events:
        position = replace(position, event=event.seq)
        messages.append(_message("event", _event(event), position))
    for line in lines:
        position = replace(position, log=line.seq)
        # `message` is what the text was called before there were logs of all attempts
        messages.append(_message("log", {**line.as_json(), "message": line.line.text}, position))
    if rows:
        position = replace(position, metric=row_seq)
        messages.append(_sent("metric", f"[{', '.join(rows)}]", position))
    for event in last_events:
        position = replace(position, event=event.seq)
        messages.append(_message("event", _event(event), position))
    if end is not None:
        messages.append(_message("end", end, f"{position}.end"))
    return News(messages, position, ended=end is not None)


def _event(event: JobEvent) -> dict[str, Any]:
    return event_out(event).model_dump(mode="json", by_alias=True)


def _message(kind: str, data: Any, position: StreamPosition | str) -> bytes:
    return _sent(kind, json.dumps(data, allow_nan=False), position)


def _sent(kind: str, text: str, position: StreamPosition | str) -> bytes:
    """What goes over the wire: made once, for all who read it."""
    return format_sse_event(data_str=text, event=kind, id=str(position))
