"""Instrument an attempt: context of its log lines, its duration, and a span from the claim to the end.

No thread sends the span: a supervisor forks, and a lock that a thread holds then would never be released in the child.
It is sent in one bounded call after the lease, which costs nothing but time when no collector listens.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from sqlalchemy.exc import DBAPIError

from service import tracing
from service.database import reading
from service.jobs import repository
from service.jobs.leases import ClaimedJob
from service.logging import bound
from worker.context import WorkerContext
from worker.metrics import ATTEMPT_SECONDS, BEHIND_BYTES, RESIDENT_BYTES, SAMPLES_PER_SECOND

ATTEMPT_GAUGES = (BEHIND_BYTES, RESIDENT_BYTES, SAMPLES_PER_SECOND)
"""Gauges of the running attempt; zero between attempts."""
SEND_SECONDS = 2.0


@contextmanager
def observe_attempt(context: WorkerContext, claimed: ClaimedJob, queue: str) -> Iterator[None]:
    """Instrument all that a supervisor does for one attempt."""
    begun = time.monotonic()
    with (
        bound(job=claimed.job_id, attempt=claimed.claim.fence, worker=context.owner),
        attempt_span(context, claimed, queue),
    ):
        try:
            yield
        finally:
            ATTEMPT_SECONDS.observe(time.monotonic() - begun)
            for gauge in ATTEMPT_GAUGES:
                gauge.set(0)


@cache
def _tracer(_pid: int) -> Any:
    return tracing.sending_at_once("trainkit-worker", SEND_SECONDS).get_tracer("trainkit.worker")


@contextmanager
def attempt_span(context: WorkerContext, claimed: ClaimedJob, queue: str) -> Iterator[None]:
    """Record a span around the attempt; without tracing nothing."""
    if not tracing.is_enabled(context.settings):
        yield
        return
    from opentelemetry.trace import SpanKind

    attributes = {
        "trainkit.job.id": claimed.job_id,
        "trainkit.attempt": claimed.claim.fence,
        "trainkit.queue": queue,
        "trainkit.project.id": claimed.project_id,
        "trainkit.model.kind": str(claimed.spec["model"]["kind"]),
    }
    span = _tracer(os.getpid()).start_span(f"attempt {queue}", kind=SpanKind.CONSUMER, attributes=attributes)
    try:
        yield
    finally:
        _set_outcome(span, context, claimed)
        span.end()


def _set_outcome(span: Any, context: WorkerContext, claimed: ClaimedJob) -> None:
    """Set the outcome that the database holds on the span."""
    from opentelemetry.trace import Status, StatusCode

    attempt = None
    with contextlib.suppress(DBAPIError), reading(context.sessions) as session:
        attempts = repository.attempts(session, claimed.job_id)
        attempt = next((one for one in attempts if one.fence == claimed.claim.fence), None)
    outcome = attempt.outcome if attempt is not None else None
    span.set_attribute("trainkit.outcome", outcome or "unknown")
    code = (attempt.error or {}).get("code") if attempt is not None else None
    if code:
        span.set_attribute("error.type", code)
    if outcome in ("failed", "lost", None):
        span.set_status(Status(StatusCode.ERROR, code or "the outcome is unknown"))
