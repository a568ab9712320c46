"""Prometheus metrics of jobs, datasets and inference requests. Labels are closed sets; no id is ever a label.

Created once per process; each exposition registers them (monitoring/exposition.py, a worker's housekeeping). Where
`PROMETHEUS_MULTIPROC_DIR` is set they are kept in files of that folder, shared by all processes of one API or worker.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import Counter, Histogram, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase

# the `_created` series double the size of a scrape, and no alert or dashboard uses them
disable_created_metrics()

FAST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SLOW_BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400)

JOBS_ENDED = Counter(
    "trainkit_jobs_ended_total",
    "Jobs that this process has ended, by final state, reason of the stop, layer and code of the error.",
    ("state", "stop_reason", "layer", "code"),
    registry=None,
)
ATTEMPTS_STARTED = Counter(
    "trainkit_attempts_started_total", "Jobs that this process has claimed, by queue.", ("queue",), registry=None
)
ATTEMPTS_ENDED = Counter(
    "trainkit_attempts_ended_total",
    "Attempts that this process has closed, by outcome (lost: its worker was lost), layer and code of the error.",
    ("outcome", "layer", "code"),
    registry=None,
)
QUEUED_SECONDS = Histogram(
    "trainkit_job_queued_seconds",
    "Seconds that a claimed job had waited since it was queued, or since the end of its retry delay.",
    ("queue",),
    buckets=SLOW_BUCKETS,
    registry=None,
)
DATASETS_CHECKED = Counter(
    "trainkit_datasets_checked_total",
    "Datasets whose check or fetch this process has finished, by state and code of the error.",
    ("state", "code"),
    registry=None,
)
INFERENCE_REQUESTS_CLOSED = Counter(
    "trainkit_inference_requests_closed_total",
    "Predictions, previews and other inference requests that this process has answered, or failed, by state.",
    ("state",),
    registry=None,
)
WORK_METRICS: tuple[MetricWrapperBase, ...] = (
    JOBS_ENDED,
    ATTEMPTS_STARTED,
    ATTEMPTS_ENDED,
    QUEUED_SECONDS,
    DATASETS_CHECKED,
    INFERENCE_REQUESTS_CLOSED,
)


def error_labels(error: dict[str, Any] | None) -> tuple[str, str]:
    """Return (layer, code) of an error as label values; empty strings without one."""
    return str((error or {}).get("layer") or ""), str((error or {}).get("code") or "")
