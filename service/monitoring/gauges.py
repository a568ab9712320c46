"""Gauges computed at a scrape: counts from the database (cached, in bounded time), the connection pool, versions."""

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
from service.doorbell import Doorbell
from service.monitoring.repository import CurrentCounts, TotalCounts, current_counts, set_timeout, total_counts
from trainkit.redis_versions import known_vulnerabilities
from trainkit.version import __version__

log = logging.getLogger(__name__)
CURRENT_CACHE_SECONDS = 2.0
CHEAP_SECONDS = 0.05
"""A query that takes longer is asked for less often, as many times as it takes longer: with a long queue too the gauges
take a fortieth of the time of one processor."""
TOTAL_CACHE_SECONDS = 60.0
MAX_WAIT_SECONDS = 3.0
"""How long a scrape waits for the database; Prometheus itself gives up after 10 s."""


def gauge(name: str, help_text: str, values: Iterable[tuple[tuple[str, ...], float]], *labels: str) -> Metric:
    """Return a family of gauges from pairs of label values and value."""
    family = GaugeMetricFamily(f"trainkit_{name}", help_text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


class StateGauges(Collector):
    """Gauges of the database's content, equal in every API process: aggregate them by `max`, not by `sum`."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._lock = threading.Lock()
        self._query: threading.Thread | None = None
        self._queried_at = self._counted_at = float("-inf")
        self._current: CurrentCounts | None = None
        self._totals = TotalCounts()
        self._query_seconds = 0.0

    def describe(self) -> Iterable[Metric]:
        """Return every family, without querying the database."""
        empty = CurrentCounts({}, {}, {}, 0, 0)
        return [*self._state(True, empty)]

    def collect(self) -> Iterator[Metric]:
        """Yield the cached counts, queried again when they are old."""
        found = self._latest()
        yield from self._state(found is not None, found)

    def _latest(self) -> CurrentCounts | None:
        with self._lock:
            if time.monotonic() - self._queried_at < self._kept_seconds():
                return self._current
            if self._query is None or not self._query.is_alive():
                # in a thread: however long the database takes, the scrape is answered
                self._query = threading.Thread(target=self._refresh, name="state-gauges", daemon=True)
                self._query.start()
            query = self._query
        query.join(MAX_WAIT_SECONDS)
        return None if query.is_alive() else self._current

    def _kept_seconds(self) -> float:
        """For how long the current counts are believed; a database that did not answer is asked again soon."""
        cost = max(1.0, self._query_seconds / CHEAP_SECONDS) if self._current is not None else 1.0
        return CURRENT_CACHE_SECONDS * cost

    def _refresh(self) -> None:
        started = time.monotonic()
        try:
            with reading(self._sessions) as session:
                set_timeout(session)
                self._current = current_counts(session)
                if started - self._counted_at >= TOTAL_CACHE_SECONDS:
                    self._totals, self._counted_at = total_counts(session), started
        except Exception as error:  # of any kind: the scrape reports that the database does not answer
            log.warning("the database does not answer a scrape: %s", getattr(error, "orig", error))
            self._current = None
        self._queried_at = time.monotonic()
        self._query_seconds = self._queried_at - started

    def _state(self, up: bool, found: CurrentCounts | None) -> Iterator[Metric]:
        yield gauge(
            "database_up", "1 when the database answered the last query of these gauges, else 0.", [((), float(up))]
        )
        yield gauge(
            "database_query_seconds", "Seconds that the last query of these gauges took.", [((), self._query_seconds)]
        )
        if found is None:
            return
        jobs, datasets = self._totals.jobs | found.jobs, self._totals.datasets | found.datasets
        queues = sorted(found.queues.items())

        def by_queue(field: str) -> list[tuple[tuple[str, ...], float]]:
            return [((name,), float(getattr(queue, field))) for name, queue in queues]

        yield gauge("jobs", "Jobs by state.", _by_label(jobs), "state")
        yield gauge("datasets", "Datasets by state.", _by_label(datasets), "state")
        yield gauge("queue_waiting", "Due work that waits for a worker, by queue.", by_queue("waiting"), "queue")
        oldest = "Seconds that the oldest due work has waited, by queue; 0 without any."
        yield gauge("queue_oldest_seconds", oldest, by_queue("oldest"), "queue")
        yield gauge("workers", "Live workers, in each queue that they serve.", by_queue("workers"), "queue")
        yield gauge(
            "workers_slots",
            "Slots of live workers; those of a worker of two queues count in both.",
            by_queue("slots"),
            "queue",
        )
        expired = "Jobs whose lease has expired and that housekeeping has not queued again yet."
        yield gauge("leases_expired", expired, [((), float(found.expired))])
        yield gauge("uploads_open", "Unfinished resumable uploads.", [((), float(found.uploads))])
        points = "Rows of the metric logs of all jobs; counted once a minute, as are ended jobs and checked datasets."
        yield gauge("metric_points", points, [((), float(self._totals.points))])


class PoolGauges(Collector):
    """Connections of this process to the database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        pool = self._engine.pool
        if isinstance(pool, QueuePool):
            values = [(("used",), float(pool.checkedout())), (("idle",), float(pool.checkedin()))]
            yield gauge("database_pool_connections", "Connections of this process to the database.", values, "state")
            limit = float(pool.size() + pool._max_overflow)  # SQLAlchemy has no public accessor
            yield gauge(
                "database_pool_connections_limit",
                "Most connections that this process may have at a time.",
                [((), limit)],
            )


class BuildInfo(Collector):
    """Versions of the service, Python and the database's dialect."""

    def __init__(self, engine: Engine) -> None:
        self._key = (__version__, platform.python_version(), engine.dialect.name)

    def collect(self) -> Iterator[Metric]:
        yield gauge("build_info", "1, with versions as labels.", [(self._key, 1.0)], "version", "python", "database")


class BrokerInfo(Collector):
    """Which broker answers, and whether its version has a known hole."""

    def __init__(self, doorbell: Doorbell) -> None:
        self._doorbell = doorbell

    def describe(self) -> Iterable[Metric]:
        """Return every family, without querying the broker."""
        return [*self._families("", "")]

    def collect(self) -> Iterator[Metric]:
        """Yield nothing while the broker does not answer, or does not say its name."""
        if (server := self._doorbell.server()) is not None:
            yield from self._families(*server)

    def _families(self, server: str, version: str) -> Iterator[Metric]:
        holes = float(len(known_vulnerabilities(server, version)))
        yield gauge(
            "broker_info", "1, with the broker's name and version.", [((server, version), 1.0)], "server", "version"
        )
        yield gauge("broker_vulnerabilities", "Known holes of the broker's version.", [((), holes)])


def _by_label(values: dict[str, int]) -> list[tuple[tuple[str, ...], float]]:
    return [((name,), float(count)) for name, count in sorted(values.items())]
