"""`python -m worker.housekeeping`: keeps house when it is this worker's turn, and says that the worker is alive.

Without torch, and apart from the Celery parent, so that neither a broker outage nor a busy parent holds it up.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time

from sqlalchemy.exc import DBAPIError

from service.background.housekeeping import TaskRunner
from service.logging import set_up
from service.settings import Settings
from service.webhooks.sender import DRAIN_SECONDS, POLL_SECONDS, Sender
from service.webhooks.target_policy import TargetPolicy
from service.workers import service as workers
from trainkit.version import installed_versions
from worker import metrics_server
from worker.context import Context, make_context, of_service
from worker.metrics import ROUND_FAILURES, ROUND_SECONDS, SLOTS, TURN

log = logging.getLogger("worker.housekeeping")
TICK_SECONDS = 1.0
SEEN_SECONDS = 5.0
# Long enough that one slow round does not pass the turn on, short enough that a dead housekeeper is soon replaced;
# with short leases shorter too, for lost jobs wait for both.
TURN_SECONDS = 10.0
SHORTEST_TURN_SECONDS = 3.0


def keep_house(context: Context, worker_id: str, queues: list[str], slots: int, stop: threading.Event) -> None:
    """Until told to stop: a sign of life every few seconds, a round of housekeeping when it is our turn."""
    about = {
        "host": socket.gethostname(),
        "pid": os.getppid(),
        "queues": queues,
        "slots": slots,
        "device": context.settings.device,
        "versions": installed_versions(),
    }
    turn = max(SHORTEST_TURN_SECONDS, min(TURN_SECONDS, context.settings.lease_seconds))
    seen_due = 0.0
    housekeeping = TaskRunner(of_service(context))
    while not stop.is_set():
        try:
            if time.monotonic() >= seen_due:
                with context.sessions.begin() as session:
                    workers.seen(session, worker_id, **about)
                seen_due = time.monotonic() + SEEN_SECONDS
            with context.sessions.begin() as session:
                ours = workers.take_housekeeping(session, worker_id, turn)
            TURN.set(ours)
            if ours:
                with ROUND_SECONDS.time():
                    failed = housekeeping.run_due()
                ROUND_FAILURES.labels("defect").inc(failed)
        except DBAPIError as error:
            TURN.set(0)  # it is somebody's who can reach the database
            ROUND_FAILURES.labels("database_away").inc()
            log.warning("the database is away: %s", error.orig)
        except Exception:
            # One bad row must not end the care for all the others.
            ROUND_FAILURES.labels("defect").inc()
            log.exception("a round of housekeeping failed")
        stop.wait(TICK_SECONDS)
    with contextlib.suppress(DBAPIError), context.sessions.begin() as session:
        workers.gone(session, worker_id)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m worker.housekeeping", description=__doc__)
    parser.add_argument("--queues", default="")
    parser.add_argument("--slots", type=int, default=1)
    arguments = parser.parse_args()
    settings = Settings.from_env()
    set_up(settings)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    queues = [queue for queue in arguments.queues.split(",") if queue]
    worker_id = f"{socket.gethostname()}/{os.getppid()}"
    context = make_context(settings)
    SLOTS.set(arguments.slots)
    metrics_server.serve(context)
    # apart from the rounds, so that receivers that are slow hold up nothing; in every worker, for claims share the work
    sender = Sender(context.sessions, TargetPolicy(context.settings.webhook_allow))
    sending = threading.Thread(target=sender.run, args=(stop,), daemon=True)
    sending.start()
    keep_house(context, worker_id, queues, arguments.slots, stop)
    sending.join(DRAIN_SECONDS + POLL_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
