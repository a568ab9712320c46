"""How things stand, from the database at the time of a scrape: looked at seldom, in bounded time, never in the way."""

from __future__ import annotations

import logging
import platform
import threading
import time
from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import QueuePool

from service.database import reading
from service.monitoring.repository import Past, Present, hurry, past, present
from trainkit.version import __version__

log = logging.getLogger(__name__)
PRESENT_SECONDS = 2.0
PAST_SECONDS = 60.0
PATIENCE_SECONDS = 3.0
"""What a scrape waits for the database, whatever hangs; Prometheus itself gives up after 10 s."""


def gauge(name: str, help_text: str, values: Iterable[tuple[tuple[str, ...], float]], *labels: str) -> Metric:
    """A family of gauges from (label values, value)."""
    family = GaugeMetricFamily(f"trainkit_{name}", help_text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


class Standing(Collector):
    """Gauges that every API process tells alike: of several, take one (`max by`), not the sum."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._lock = threading.Lock()
        self._look: threading.Thread | None = None
        self._looked_at = self._counted_at = float("-inf")
        self._present: Present | None = None
        self._past = Past()
        self._took = 0.0

    def describe(self) -> Iterable[Metric]:
        """Every family, without asking the database."""
        nothing = Present({}, {}, {}, 0, 0)
        return [*self._state(True, nothing)]

    def collect(self) -> Iterator[Metric]:
        """What the last look found, a new one if that is older than two seconds."""
        found = self._latest()
        yield from self._state(found is not None, found)

    def _latest(self) -> Present | None:
        with self._lock:
            if time.monotonic() - self._looked_at < PRESENT_SECONDS:
                return self._present
            if self._look is None or not self._look.is_alive():
                # a thread of its own: whatever the database does to it, the scrape is answered
                self._look = threading.Thread(target=self._ask, name="standing", daemon=True)
                self._look.start()
            look = self._look
        look.join(PATIENCE_SECONDS)
        return None if look.is_alive() else self._present

    def _ask(self) -> None:
        begun = time.monotonic()
        try:
            with reading(self._sessions) as session:
                hurry(session)
                self._present = present(session)
                if begun - self._counted_at >= PAST_SECONDS:
                    self._past, self._counted_at = past(session), begun
        except Exception as error:  # whatever it is, the scrape says that the database does not answer
            log.warning("the database does not answer a scrape: %s", getattr(error, "orig", error))
            self._present = None
        self._looked_at = time.monotonic()
        self._took = self._looked_at - begun

    def _state(self, up: bool, found: Present | None) -> Iterator[Metric]:
        yield gauge("database_up", "1 when the database answered the last look, else 0.", [((), float(up))])
        yield gauge("database_look_seconds", "How long the last look at the database took.", [((), self._took)])
        if found is None:
            return
        jobs, datasets = self._past.jobs | found.jobs, self._past.datasets | found.datasets
        queues = sorted(found.queues.items())

        def of_queues(what: str) -> list[tuple[tuple[str, ...], float]]:
            return [((name,), float(getattr(queue, what))) for name, queue in queues]

        yield gauge("jobs", "Jobs by state.", _by_label(jobs), "state")
        yield gauge("datasets", "Datasets by state.", _by_label(datasets), "state")
        yield gauge(
            "queue_waiting", "Work that is due and waits for a worker, by queue.", of_queues("waiting"), "queue"
        )
        oldest = "How long the oldest of it has waited; 0 when none waits."
        yield gauge("queue_oldest_seconds", oldest, of_queues("oldest"), "queue")
        yield gauge("workers", "Workers seen lately, in each queue that they serve.", of_queues("workers"), "queue")
        yield gauge("workers_slots", "Their slots; of a worker of two queues in both.", of_queues("slots"), "queue")
        expired = "Jobs whose worker is lost and that housekeeping has not given back yet."
        yield gauge("leases_expired", expired, [((), float(found.expired))])
        yield gauge("uploads_open", "Resumable uploads on their way.", [((), float(found.uploads))])
        points = (
            "Rows of the metric logs of all jobs there are; looked at once a minute, as are ended jobs and datasets."
        )
        yield gauge("metric_points", points, [((), float(self._past.points))])


class Pool(Collector):
    """The connections of this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        pool = self._engine.pool
        if isinstance(pool, QueuePool):
            values = [(("used",), float(pool.checkedout())), (("idle",), float(pool.checkedin()))]
            yield gauge("database_pool_connections", "Connections of this process to the database.", values, "state")
            limit = float(pool.size() + pool._max_overflow)  # nothing public tells it
            yield gauge("database_pool_connections_limit", "How many it may have at a time.", [((), limit)])


class Build(Collector):
    """What runs here."""

    def __init__(self, engine: Engine) -> None:
        self._key = (__version__, platform.python_version(), engine.dialect.name)

    def collect(self) -> Iterator[Metric]:
        yield gauge("build_info", "1, with versions as labels.", [(self._key, 1.0)], "version", "python", "database")


def _by_label(values: dict[str, int]) -> list[tuple[tuple[str, ...], float]]:
    return [((name,), float(count)) for name, count in sorted(values.items())]
