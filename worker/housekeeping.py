"""`python -m worker.housekeeping`: the heartbeat of a worker, and the periodic housekeeping when it is its turn.

A process without torch, apart from the Celery parent: neither a broker outage nor a busy parent delays it.
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
from service.background.lease_expiry import release_ended
from service.logging import set_up
from service.mirrors.sender import MirrorSender
from service.private_files import keep_files_private
from service.secret_box import SecretBox
from service.settings import Settings
from service.webhooks.sender import DRAIN_SECONDS, POLL_SECONDS, Sender
from service.webhooks.target_policy import TargetPolicy
from service.webhooks.transport import Channels
from service.workers import repository as workers
from trainkit.redis_versions import known_vulnerabilities
from trainkit.version import installed_versions
from worker import metrics_server
from worker.accelerators import accelerator_bytes
from worker.confinement import summary
from worker.context import WorkerContext, make_context, service_context
from worker.exit_errors import memory_limit
from worker.metrics import ROUND_FAILURES, ROUND_SECONDS, SLOTS, TURN

log = logging.getLogger("worker.housekeeping")
TICK_SECONDS = 1.0
SEEN_SECONDS = 5.0
# Long enough that one slow round does not pass the turn on, short enough that a dead process is soon replaced;
# shorter with short leases, because lost jobs wait for both.
TURN_SECONDS = 10.0
SHORTEST_TURN_SECONDS = 3.0


def run(context: WorkerContext, worker_id: str, queues: list[str], slots: int, stop: threading.Event) -> None:
    """Until `stop`: a heartbeat every few seconds, and rounds of housekeeping while it is this worker's turn."""
    description = {
        "host": socket.gethostname(),
        "pid": os.getppid(),
        "queues": queues,
        "slots": slots,
        "device": context.settings.device,
        "memory_bytes": memory_limit(),
        "accelerator_bytes": accelerator_bytes(context.settings.device),
        "versions": {**installed_versions(), "confinement": summary(context.settings)},
    }
    turn = max(SHORTEST_TURN_SECONDS, min(TURN_SECONDS, context.settings.lease_seconds))
    seen_due = 0.0
    housekeeping = TaskRunner(service_context(context))
    while not stop.is_set():
        try:
            if time.monotonic() >= seen_due:
                with context.sessions.begin() as session:
                    workers.record_heartbeat(session, worker_id, **description)
                seen_due = time.monotonic() + SEEN_SECONDS
            # not a task of the turn: only a process of the same host sees which of its processes have ended
            release_ended(context.sessions, context.settings.max_interruptions, context.doorbell.ring)
            with context.sessions.begin() as session:
                ours = workers.claim_housekeeping(session, worker_id, turn)
            TURN.set(ours)
            if ours:
                with ROUND_SECONDS.time():
                    failed = housekeeping.run_due()
                ROUND_FAILURES.labels("defect").inc(failed)
        except DBAPIError as error:
            TURN.set(0)  # a worker that reaches the database takes it
            ROUND_FAILURES.labels("database_away").inc()
            log.warning("the database is away: %s", error.orig)
        except Exception:
            # One bad row must not end the housekeeping of all others.
            ROUND_FAILURES.labels("defect").inc()
            log.exception("a round of housekeeping failed")
        stop.wait(TICK_SECONDS)
    with contextlib.suppress(DBAPIError), context.sessions.begin() as session:
        workers.remove(session, worker_id)


def name_broker(context: WorkerContext) -> None:
    """Log which broker answers, and a warning when its version has a known hole."""
    server = context.doorbell.server()
    if server is None:
        return
    log.info("the broker is %s %s", *server)
    if holes := known_vulnerabilities(*server):
        log.warning("%s %s has %s: install a newer version", *server, ", ".join(holes))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m worker.housekeeping", description=__doc__)
    parser.add_argument("--queues", default="")
    parser.add_argument("--slots", type=int, default=1)
    arguments = parser.parse_args()
    settings = Settings.from_env()
    set_up(settings)
    keep_files_private(settings)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    queues = [queue for queue in arguments.queues.split(",") if queue]
    worker_id = f"{socket.gethostname()}/{os.getppid()}"
    context = make_context(settings)
    SLOTS.set(arguments.slots)
    name_broker(context)
    metrics_server.serve(context)
    # in a thread of its own, so that slow receivers delay no round; in every worker, because claims divide the work
    policy, box = TargetPolicy(context.settings.webhook_allow), SecretBox(context.settings)
    senders = (
        Sender(context.sessions, policy, box, Channels.of(settings)),
        MirrorSender(service_context(context), policy, box),
    )
    sending = [threading.Thread(target=sender.run, args=(stop,), daemon=True) for sender in senders]
    for thread in sending:
        thread.start()
    run(context, worker_id, queues, arguments.slots, stop)
    for thread in sending:
        thread.join(DRAIN_SECONDS + POLL_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
