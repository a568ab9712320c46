"""HTTP of the metric log: cursor polling and long-poll."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from service.auth import Reader
from service.conditional_requests import tag_matches
from service.context import Context, Service
from service.database import reading
from service.jobs import service as jobs
from service.jobs.retention_status import check_not_purged
from service.jobs.states import ENDED
from service.metrics.repository import count_superseded, superseded_ranges
from service.metrics.schemas import MetricsOut
from service.metrics.service import page_slices
from service.metrics.wire import texts
from service.pagination import NOT_MODIFIED
from service.principal import Principal

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["metrics"])
Names = Annotated[str | None, Query(max_length=2000, description="Comma-separated: val_accuracy, or accuracy for all.")]


def parse_names(names: str | None) -> frozenset[str] | None:
    """Return the names of series; None for all."""
    return frozenset(name.strip() for name in names.split(",") if name.strip()) if names else None


@dataclass(frozen=True, slots=True)
class MetricsQuery:
    """A request for rows of a job's metric log."""

    job_id: str
    after: int
    limit: int
    names: frozenset[str] | None
    known_tag: str | None


@dataclass(frozen=True, slots=True)
class MetricsAnswer:
    """Rows found by one query. `body` is None when the reader has it already; `ready` says whether to answer at once."""

    tag: str
    body: bytes | None
    ready: bool


@router.get(
    "/metrics",
    response_model=MetricsOut,
    responses=NOT_MODIFIED,
    summary="The metric log by cursor; `wait` seconds for something new",
)
async def get_job_metrics(
    job_id: str,
    who: Reader,
    context: Service,
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    limit: Annotated[int, Query(ge=1, le=5000)] = 500,
    names: Names = None,
    wait: Annotated[float, Query(ge=0, le=25)] = 0,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Rows in the order they were logged, with `seq` rising by one: `next` is the `after` of the next request, and
    `done` says that no more rows come. Rows that a resumed attempt trained again are marked `superseded`. 410 when
    retention has removed the log.
    """
    query = MetricsQuery(job_id, after, limit, parse_names(names), if_none_match)
    answer = await context.job_watcher.look_until(
        job_id, partial(_query, context, who, query), attrgetter("ready"), wait
    )
    headers = {"ETag": answer.tag, "Cache-Control": "no-cache"}
    if answer.body is None:
        return Response(status_code=304, headers=headers)
    return Response(answer.body, media_type="application/json", headers=headers)


def _query(context: Context, who: Principal, query: MetricsQuery) -> MetricsAnswer:
    # a session a look: none is held between the looks of a long-poll
    with reading(context.sessions) as session:
        job = jobs.find(session, who, query.job_id)
        check_not_purged(job, "metrics")
        last, ended = job.next_seq - 1, job.state in ENDED
        ranges = superseded_ranges(session, query.job_id)
        # the state that matters is whether more can come: a change from queued to running changes no row
        tag = etag(query.job_id, last, count_superseded(ranges), ended, query.after, query.limit, query.names)
        if tag_matches(query.known_tag, tag):
            return MetricsAnswer(tag, None, ready=ended)
        slices, following = page_slices(session, query.job_id, query.after, query.limit, query.names, ranges)
    rows = [text for piece in slices for text in texts(piece)]
    done = json.dumps(ended and following >= last)
    body = f'{{"data": [{", ".join(rows)}], "next": {following}, "done": {done}}}'
    return MetricsAnswer(tag, body.encode(), ready=bool(rows) or ended)


def etag(*parts: Any) -> str:
    """A weak ETag of everything that an answer depends on."""
    shown = [sorted(part) if isinstance(part, frozenset) else part for part in parts]
    return f'W/"{hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:32]}"'
