"""A worker's `/metrics`, served by its housekeeping process, which has no torch and forks no training process."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import Metric
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector

from service.database import db_time, reading
from service.instrumentation import WORK_METRICS
from service.monitoring.exposition import Exposition
from service.monitoring.gauges import BuildInfo, gauge
from service.settings import Settings
from worker.context import WorkerContext
from worker.metrics import WORKER_METRICS

log = logging.getLogger(__name__)
StartResponse = Callable[[str, list[tuple[str, str]]], object]


class ReachabilityCollector(Collector):
    """Whether broker and database answer this worker at the time of the scrape."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context

    def describe(self) -> Iterable[Metric]:
        return self._gauges(True, True)

    def collect(self) -> Iterable[Metric]:
        return self._gauges(self._context.doorbell.reachable(), self._database_answers())

    def _gauges(self, broker: bool, database: bool) -> Iterator[Metric]:
        yield gauge("worker_broker_up", "1 when the broker answers this worker, else 0.", [((), float(broker))])
        yield gauge("worker_database_up", "1 when the database answers this worker, else 0.", [((), float(database))])

    def _database_answers(self) -> bool:
        try:
            with reading(self._context.sessions) as session:
                db_time(session)
        except Exception as error:  # whatever it is, the answer is no
            log.debug("the database does not answer a scrape: %s", error)
            return False
        return True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """A line for every scrape would say nothing."""


def exposition_of(context: WorkerContext) -> Exposition:
    """All metrics of this worker."""
    collectors = (ReachabilityCollector(context), BuildInfo(context.engine))
    return Exposition((*WORK_METRICS, *WORKER_METRICS), collectors, context.settings.metrics_folder)


def wsgi_app(exposition: Exposition, token: str | None) -> Callable[[dict[str, Any], StartResponse], list[bytes]]:
    """The WSGI application: `/metrics` alone, with the token when there is one."""
    expected = f"Bearer {token}".encode()

    def app(environ: dict[str, Any], start: StartResponse) -> list[bytes]:
        given = environ.get("HTTP_AUTHORIZATION", "").encode("latin-1")
        if token and not hmac.compare_digest(given, expected):
            start("401 Unauthorized", [("WWW-Authenticate", 'Bearer realm="trainkit"'), ("Content-Type", "text/plain")])
            return [b"Send TRAINKIT_METRICS_TOKEN in the header `Authorization: Bearer ...`.\n"]
        if environ["PATH_INFO"] != "/metrics" or environ["REQUEST_METHOD"] != "GET":
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"There is GET /metrics here, and nothing else.\n"]
        body, media_type = exposition.render(environ.get("HTTP_ACCEPT", ""))
        start("200 OK", [("Content-Type", media_type), ("Content-Length", str(len(body)))])
        return [body]

    return app


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on an address or name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(context: WorkerContext) -> ThreadingWSGIServer | None:
    """Serve in threads of this process. None when no port is set, when it is taken, or when others could read without a
    token; the log tells.
    """
    settings: Settings = context.settings
    if not settings.worker_metrics_port:
        return None
    host, port = settings.worker_metrics_host, settings.worker_metrics_port
    if settings.metrics_token is None and not is_loopback(host):
        log.error("no metrics: %s:%s is reached by others, so it needs TRAINKIT_METRICS_TOKEN", host, port)
        return None
    app: Any = wsgi_app(exposition_of(context), settings.metrics_token)
    try:
        server = make_server(host, port, app, server_class=ThreadingWSGIServer, handler_class=_Quiet)
    except OSError as error:
        log.error("no metrics: %s:%s cannot be listened on (%s); give every worker a port", host, port, error.strerror)
        return None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    log.info("metrics at http://%s:%s/metrics", host, server.server_port)
    return server
