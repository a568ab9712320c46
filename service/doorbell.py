"""Ringing for workers. The message names no job; losing it costs time, never work."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from celery import Celery

log = logging.getLogger(__name__)
REST_SECONDS = 2.0
SERVER_SECONDS = 60.0
"""After a broker did not answer, nobody waits for it again for so long; housekeeping rings for what was missed."""


class Doorbell:
    """Sends `worker.work(queue)` to a queue, best effort: a broker that is away is logged and forgotten."""

    def __init__(self, broker_url: str) -> None:
        self._celery = Celery("trainkit", broker=broker_url)
        self._celery.conf.update(
            broker_connection_retry_on_startup=False,
            broker_connection_timeout=2,
            broker_transport_options={
                "socket_timeout": 3,
                "socket_connect_timeout": 2,
                "max_retries": 0,
                "retry_on_timeout": False,
            },
            task_ignore_result=True,
            task_publish_retry=False,
        )
        # one at a time: a broker that hangs must not collect a thread for every request
        self._busy = threading.Lock()
        self._resting_until = 0.0
        self._last_check: tuple[float, bool] = (0.0, False)
        self._server: tuple[float, tuple[str, str] | None] = (0.0, None)

    def ring(self, queue: str) -> bool:
        """Ring for `queue`; False when nobody can have heard. Never raises; bounded by the socket timeouts."""
        if time.monotonic() < self._resting_until or not self._busy.acquire(timeout=3):
            return False
        try:
            self._celery.send_task("worker.work", args=[queue], queue=queue, retry=False, ignore_result=True)
        except Exception as error:  # the broker's client raises many kinds, and none may cost a job
            log.warning("nobody heard the bell of queue %s: %s", queue, error)
            self._resting_until = time.monotonic() + REST_SECONDS
            return False
        else:
            return True
        finally:
            self._busy.release()

    def reachable(self) -> bool:
        """Whether the broker answers, asked at most every `REST_SECONDS`."""
        checked_at, answered = self._last_check
        if checked_at and time.monotonic() - checked_at < REST_SECONDS:
            return answered
        try:
            with self._celery.connection_for_write() as connection:
                connection.ensure_connection(max_retries=0, timeout=2)
            answered = True
        except Exception as error:  # as above: whatever it is, the answer is no
            log.debug("the broker does not answer: %s", error)
            answered = False
        self._last_check = (time.monotonic(), answered)
        return answered

    def connection(self) -> Any:
        """Return a connection of one's own to the broker, which is made when it is first used."""
        return self._celery.connection_for_write()

    def server(self) -> tuple[str, str] | None:
        """Return name and version, such as ("redis", "7.4.6"), asked at most every `SERVER_SECONDS`.

        None while the broker does not answer, and for brokers of another kind.
        """
        checked_at, found = self._server
        if checked_at and time.monotonic() - checked_at < SERVER_SECONDS:
            return found
        if not self.reachable():
            return None
        try:
            with self._celery.connection_for_write() as connection:
                info = connection.default_channel.client.info("server")
            name = str(info.get("server_name") or "redis").lower()
            found = (name, str(info.get(f"{name}_version") or info["redis_version"]))
        except Exception as error:  # a user without the right to ask, or RabbitMQ
            log.debug("the broker does not name itself: %s", error)
            found = None
        self._server = (time.monotonic(), found)
        return found
