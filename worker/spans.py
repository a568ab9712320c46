"""A span of every attempt, from the claim to the end, sent in one go when the attempt is over.

No thread sends it: a supervisor forks, and a thread that holds a lock then would be missed by the child for ever. The
sending is bounded, happens after the lease, and costs nothing but time when nobody listens.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from sqlalchemy.exc import DBAPIError

from service import tracing
from service.database import reading
from service.jobs.leases import ClaimedJob
from service.jobs.tables import Attempt
from worker.context import Context

SEND_SECONDS = 2.0


@cache
def _tracer(_pid: int) -> Any:
    return tracing.sending_at_once("trainkit-worker", SEND_SECONDS).get_tracer("trainkit.worker")


@contextmanager
def attempt_span(context: Context, claimed: ClaimedJob, queue: str) -> Iterator[None]:
    """Without tracing: nothing at all."""
    if not tracing.wanted(context.settings):
        yield
        return
    from opentelemetry.trace import SpanKind

    about = {
        "trainkit.job.id": claimed.job_id,
        "trainkit.attempt": claimed.claim.fence,
        "trainkit.queue": queue,
        "trainkit.project.id": claimed.project_id,
        "trainkit.model.kind": str(claimed.spec["model"]["kind"]),
    }
    span = _tracer(os.getpid()).start_span(f"attempt {queue}", kind=SpanKind.CONSUMER, attributes=about)
    try:
        yield
    finally:
        _conclude(span, context, claimed)
        span.end()


def _conclude(span: Any, context: Context, claimed: ClaimedJob) -> None:
    """How the attempt ended, as the database has it."""
    from opentelemetry.trace import Status, StatusCode

    attempt = None
    with contextlib.suppress(DBAPIError), reading(context.sessions) as session:
        attempt = session.get(Attempt, (claimed.job_id, claimed.claim.fence))
    outcome = attempt.outcome if attempt is not None else None
    span.set_attribute("trainkit.outcome", outcome or "unknown")
    code = (attempt.error or {}).get("code") if attempt is not None else None
    if code:
        span.set_attribute("error.type", code)
    if outcome in ("failed", "lost", None):
        span.set_status(Status(StatusCode.ERROR, code or "the end is not known"))
