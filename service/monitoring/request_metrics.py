"""Prometheus metrics of HTTP requests. Apart from `service.instrumentation`, because workers serve no requests."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from service.instrumentation import FAST_BUCKETS

REQUESTS = Counter(
    "trainkit_http_requests_total",
    "Requests served, by method, route template and class of status.",
    ("method", "route", "status"),
    registry=None,
)
REQUEST_SECONDS = Histogram(
    "trainkit_http_request_duration_seconds",
    "Seconds from the request to the last byte of its response; without event streams and long polls.",
    ("method", "route"),
    buckets=FAST_BUCKETS,
    registry=None,
)
IN_PROGRESS = Gauge(
    "trainkit_http_requests_in_progress",
    "Requests that are being served now.",
    multiprocess_mode="livesum",
    registry=None,
)
WAITING = Gauge(
    "trainkit_http_waiting_readers",
    "Open event streams and long polls, by kind.",
    ("kind",),
    multiprocess_mode="livesum",
    registry=None,
)
RECEIVED_BYTES = Counter(
    "trainkit_http_received_bytes_total",
    "Bytes of request bodies received, by route template; most of them are uploads.",
    ("route",),
    registry=None,
)

REFUSED_CONNECTIONS = Counter(
    "trainkit_http_refused_total",
    "Connections and requests refused before a request was read, by reason.",
    ("reason",),
    registry=None,
)

for _kind in ("stream", "long_poll"):
    WAITING.labels(_kind)

REQUEST_METRICS: tuple[MetricWrapperBase, ...] = (
    *(REQUESTS, REQUEST_SECONDS, IN_PROGRESS, WAITING, RECEIVED_BYTES),
    REFUSED_CONNECTIONS,
)
