"""The one Celery task, sent by the doorbell: claim and do work of a queue until there is none."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from worker import shutdown, slots
from worker.celery_app import app
from worker.context import WorkerContext, context
from worker.intake import claim_and_check
from worker.metrics import BUSY_SLOTS
from worker.supervisor import claim_and_supervise

log = logging.getLogger(__name__)


@app.task(name="worker.work")
def work(queue: str) -> None:
    """Claim and do work of a queue until none is left or the worker stops."""
    do_one = work_function(queue)
    try:
        with shutdown.busy(), BUSY_SLOTS.labels(queue).track_inprogress():
            while not shutdown.requested() and _do_one(do_one):
                pass
    except DBAPIError as error:
        # Housekeeping sends the message again for work that waits.
        log.warning("queue=%s the database is away: %s", queue, error.orig)


def _do_one(do_one: Callable[[WorkerContext], bool]) -> bool:
    try:
        worked = do_one(context())
    finally:
        slots.release()
    if worked:
        # what found no slot meanwhile may be in the other queue, to which this slot does not return
        for queue in slots.take_refusals():
            context().doorbell.ring(queue)
    return worked


def work_function(queue: str) -> Callable[[WorkerContext], bool]:
    """Return the function that does one piece of the queue's work; it returns False when there was none."""
    if queue == "data":
        return claim_and_check
    if queue == "predict":
        from worker.inference import claim_and_answer

        return claim_and_answer
    return lambda context: claim_and_supervise(context, queue)
