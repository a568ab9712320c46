"""The live stream of a list of jobs (server-sent events), and the list itself with `wait`.

A connection begins with `sync`: the ids that are in the list, after which a client drops all others. `jobs` follow: rows
that are new in the list or have changed, the whole list first. `left` names jobs that are no longer in it. An id is a
time: a reader who comes back with it gets `sync` and the rows that have changed since.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Header
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic_core import to_json
from sqlalchemy.orm import Session

from service.errors import HttpProblem
from service.event_stream import PING_SECONDS
from service.jobs import repository
from service.jobs.list_watcher import JobListWatch, JobListWatcher
from service.jobs.schemas import job_columns, job_row
from service.jobs.tables import Job
from service.listing.field_selection import selected
from service.listing.query import ListQuery

LIST_EVENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "sync": (
        "The ids that are in the list: drop all others.",
        {
            "type": "object",
            "properties": {"ids": {"type": "array", "items": {"type": "string"}}},
            "required": ["ids"],
            "additionalProperties": False,
        },
    ),
    "jobs": (
        "Rows that are new in the list or have changed; with `fields` only those of each.",
        {"type": "array", "items": {"$ref": "#/components/schemas/JobRow"}},
    ),
    "left": ("Ids that are no longer in the list.", {"type": "array", "items": {"type": "string"}}),
}
ROWS_A_MESSAGE = 100
LastEventId = Annotated[
    str | None,
    Header(max_length=64, description="Id of the last event that was received: the stream goes on after it."),
]


def parse_event_id(text: str | None) -> datetime | None:
    """Return the time that an id of this stream is. Raises a 422 problem."""
    if not text:
        return None
    if not re.fullmatch(r"\d{1,14}", text, re.ASCII):
        detail = f"{text[:80]!r} is not an id of this stream: send the id of the last event you saw."
        raise HttpProblem(422, "bad_cursor", detail)
    return datetime.fromtimestamp(int(text) / 1000, UTC)


async def follow(
    watcher: JobListWatcher, project_id: str, query: ListQuery, key: str, since: datetime | None
) -> AsyncGenerator[bytes]:
    """Yield the list, or what has changed in it since, and then what changes."""
    with watcher.watching(project_id, query, key, read_rows) as watch:
        while watch.rows is None:
            if not await watch.changed(0, PING_SECONDS):
                yield KEEPALIVE_COMMENT
        known = -1
        while True:
            changes = watch.since(known) if known >= 0 else None
            if changes is None:
                known = watch.number
                for message in list(_whole(watch, since)):
                    yield message
                since = None
            else:
                known = watch.number
                for change in changes:
                    for message in list(_messages(change.rows, change.left, change.at)):
                        yield message
            if watch.number == known and not await watch.changed(known, PING_SECONDS):
                yield KEEPALIVE_COMMENT


def read_rows(session: Session, query: ListQuery, ids: Sequence[str]) -> dict[str, tuple[datetime, bytes]]:
    """Return the rows of these jobs as the list shows them, and when each was updated."""
    fields, tree = query.shown_fields, query.fields or query.listing.default_tree
    columns = [getattr(Job, name) for name in job_columns(fields)]
    rows = repository.jobs_with(session, ids, [*columns, Job.updated_at])
    datasets = repository.datasets_of(session, rows)
    shown: Callable[[Any], Any] = (lambda row: row) if tree is None else (lambda row: selected(row, tree))
    return {row.id: (row.updated_at, to_json(shown(job_row(row, datasets[row.dataset_id], fields)))) for row in rows}


def _whole(watch: JobListWatch, since: datetime | None) -> Iterator[bytes]:
    assert watch.rows is not None
    assert watch.at is not None
    rows = list(watch.rows.values()) if since is None else watch.rows_since(since)
    # without an id: a reader who leaves before the rows begins anew
    yield format_sse_event(data_str=to_json({"ids": list(watch.rows)}).decode(), event="sync")
    yield from _messages(rows, (), watch.at)
    if not rows:
        yield format_sse_event(data_str="[]", event="jobs", id=_id(watch.at))


def _messages(rows: Sequence[bytes], left: Iterable[str], at: datetime) -> Iterator[bytes]:
    """The messages of one look. Only the last has the id: a reader who leaves in between is told all of it again."""
    parts = [
        ("jobs", b"[" + b",".join(rows[start : start + ROWS_A_MESSAGE]) + b"]")
        for start in range(0, len(rows), ROWS_A_MESSAGE)
    ]
    if gone := list(left):
        parts.append(("left", to_json(gone)))
    for number, (event, data) in enumerate(parts, 1):
        identifier = _id(at) if number == len(parts) else None
        yield format_sse_event(data_str=data.decode(), event=event, id=identifier)


def _id(at: datetime) -> str:
    return str(int(at.timestamp() * 1000))
