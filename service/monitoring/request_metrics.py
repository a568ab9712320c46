"""Prometheus metrics of requests. Apart from those of the work: a worker, which imports those, answers none."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from service.monitoring.metrics import FAST

REQUESTS = Counter(
    "trainkit_http_requests_total",
    "Requests answered, by method, route template and class of status.",
    ("method", "route", "status"),
    registry=None,
)
REQUEST_SECONDS = Histogram(
    "trainkit_http_request_duration_seconds",
    "From the request to the last byte of its answer; without event streams and long-polls.",
    ("method", "route"),
    buckets=FAST,
    registry=None,
)
IN_PROGRESS = Gauge(
    "trainkit_http_requests_in_progress",
    "Requests that are being answered now.",
    multiprocess_mode="livesum",
    registry=None,
)
WAITING = Gauge(
    "trainkit_http_waiting_readers",
    "Open event streams and long-polls.",
    ("kind",),
    multiprocess_mode="livesum",
    registry=None,
)
RECEIVED_BYTES = Counter(
    "trainkit_http_received_bytes_total",
    "Bytes of request bodies that came, by route template: uploads above all.",
    ("route",),
    registry=None,
)

for _kind in ("stream", "long_poll"):
    WAITING.labels(_kind)

OF_REQUESTS: tuple[MetricWrapperBase, ...] = (REQUESTS, REQUEST_SECONDS, IN_PROGRESS, WAITING, RECEIVED_BYTES)
