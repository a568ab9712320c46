"""The Celery application. Its messages are a doorbell: they name a queue, and the database holds the work.

Messages are acknowledged at once and never retried, and results are not kept: a message that is lost, doubled or late
does no harm. torch is imported here in the parent, before its pool forks, so that a training process starts in
milliseconds; CUDA is never initialised in it.
"""

from __future__ import annotations

import gc
import importlib
import logging
import signal
from types import FrameType
from typing import Any

from celery import Celery, signals

from service.logging import set_up
from service.private_files import keep_files_private
from service.settings import Settings
from worker import metrics_folder, reader_limits, shutdown, slots
from worker.confinement import ConfinementError, check_support, describe
from worker.context import remember_parent
from worker.housekeeping_process import HousekeepingProcess

log = logging.getLogger(__name__)
PRELOADED = {
    "train": ("trainkit.data", "trainkit.fit.loop.fit", "trainkit.fit.attainable"),
    "data": ("trainkit.data.load",),
    "predict": ("worker.predict", "trainkit.fit.models.trained_model", "PIL.Image"),
}
"""What each queue needs beyond the imports of `worker.tasks`, which Celery loads before."""

SETTINGS = Settings.from_env()
# before any module that defines metrics is imported
metrics_folder.create(SETTINGS)

app = Celery("trainkit", broker=SETTINGS.broker_url, include=["worker.tasks"])
app.conf.update(
    accept_content=["json"],
    task_serializer="json",
    task_default_queue="train",
    task_ignore_result=True,
    task_acks_late=False,
    # A message reserved behind a long job would keep an idle worker from seeing it.
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,
    # A short outage of the broker must not end a training of many hours.
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    worker_redirect_stdouts=False,
    worker_proc_alive_timeout=60.0,
)


@signals.worker_init.connect
def preload(sender: Any, **_: Any) -> None:
    """Import what the queues need before the pool forks, so that no slot and no job pays for it again."""
    # Modules are never garbage: collections would walk them again and again, a seventh of the import's time. Frozen,
    # they are also left alone by the slots' collections, which would copy the pages that slots and parent share.
    keep_files_private(SETTINGS)
    remember_parent()
    gc.disable()
    reader_limits.warn_of_low_limit()
    for queue in sender.app.amqp.queues.consume_from:
        for module in PRELOADED.get(queue, PRELOADED["train"]):
            importlib.import_module(module)
    gc.freeze()
    gc.enable()
    try:
        # after the imports, because what is imported is what a confined process may read
        check_support(SETTINGS.scratch, required=SETTINGS.confinement == "required")
    except ConfinementError as error:
        raise SystemExit(str(error)) from None
    if set(slots.QUEUES) & set(sender.app.amqp.queues.consume_from):
        slots.share(sender.concurrency)


@signals.worker_ready.connect
def start_housekeeping(sender: Any, **_: Any) -> None:
    """Start the housekeeping process, and restart it when it dies."""
    for level, message in describe(SETTINGS):
        log.log(level, message)
    queues = sorted(sender.app.amqp.queues.consume_from)
    process = HousekeepingProcess(queues, sender.controller.concurrency)
    process.ensure_running()
    sender.timer.call_repeatedly(5.0, process.ensure_running)
    # weak=False: nothing else references the function
    signals.worker_shutdown.connect(lambda **_: process.stop(), weak=False)
    signals.worker_shutdown.connect(lambda **_: metrics_folder.remove(), weak=False)


@signals.worker_shutting_down.connect
def hand_back(**_: Any) -> None:
    """Every slot sees the flag within a tick and hands its job back."""
    shutdown.request()


@signals.worker_process_init.connect
def prepare_slot(**_: Any) -> None:
    """Handle SIGTERM, which a service manager sends to the whole group; Celery itself sets the parent-death signal."""
    signal.signal(signal.SIGTERM, _stop_slot)


def _stop_slot(_number: int, _frame: FrameType | None) -> None:
    shutdown.request()
    if not shutdown.slot_is_busy():
        raise SystemExit(0)


@signals.setup_logging.connect
def set_up_logging(loglevel: int | str | None = None, **_: Any) -> None:
    """Use the format of the service's logs instead of Celery's."""
    set_up(SETTINGS, loglevel or logging.INFO)
