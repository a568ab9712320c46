"""One attempt as seen from outside: its lines say whose they are, its time is counted, its span is sent at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.jobs.leases import ClaimedJob
from service.logging import bound
from worker.context import Context
from worker.metrics import ATTEMPT_SECONDS, BEHIND_BYTES, RESIDENT_BYTES, SAMPLES_PER_SECOND
from worker.spans import attempt_span

OF_NOW = (BEHIND_BYTES, RESIDENT_BYTES, SAMPLES_PER_SECOND)


@contextmanager
def observed(context: Context, claimed: ClaimedJob, queue: str) -> Iterator[None]:
    """Around all that a supervisor does for one attempt."""
    begun = time.monotonic()
    with (
        bound(job=claimed.job_id, attempt=claimed.claim.fence, worker=context.owner),
        attempt_span(context, claimed, queue),
    ):
        try:
            yield
        finally:
            ATTEMPT_SECONDS.observe(time.monotonic() - begun)
            for gauge in OF_NOW:
                gauge.set(0)
