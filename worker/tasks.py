"""The one Celery task: the bell has rung, so look for work until there is none."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from worker import shutdown
from worker.celery_app import app
from worker.context import Context, context
from worker.metrics import BUSY_SLOTS

log = logging.getLogger(__name__)


@app.task(name="worker.ring")
def ring(queue: str) -> None:
    """Claim and do work of this queue until none is left, or the worker is told to stop."""
    do_one = worker_of(queue)
    try:
        with shutdown.busy(), BUSY_SLOTS.labels(queue).track_inprogress():
            while not shutdown.asked() and do_one(context()):
                pass
    except DBAPIError as error:
        # Housekeeping rings again for whatever waits.
        log.warning("queue=%s the database is away: %s", queue, error.orig)


def worker_of(queue: str) -> Callable[[Context], bool]:
    """What does one piece of that queue's work; False when there was none."""
    if queue == "data":
        from worker.intake import claim_and_check

        return claim_and_check
    if queue == "predict":
        from worker.inference import claim_and_answer

        return claim_and_answer
    from worker.supervisor import claim_and_supervise

    return lambda context: claim_and_supervise(context, queue)
