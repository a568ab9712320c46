"""Prometheus metrics of the work, whichever process does it. Labels are closed sets; no id is ever one.

Made once a process and registered by whoever tells them (`exposition.py`, a worker's housekeeping). Where
`PROMETHEUS_MULTIPROC_DIR` is set they live in files of that folder, which all processes of one API or worker share.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import Counter, Histogram, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase

# a series of its own for every series, which says when it began: twice the bytes, and nobody asks
disable_created_metrics()

FAST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SLOW = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400)

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
    "Attempts that this process has closed, by outcome (lost: its worker was), layer and code of the error.",
    ("outcome", "layer", "code"),
    registry=None,
)
QUEUED_SECONDS = Histogram(
    "trainkit_job_queued_seconds",
    "How long a claimed job had waited since it was queued or, when it had to pause first, since it was due.",
    ("queue",),
    buckets=SLOW,
    registry=None,
)
DATASETS_CHECKED = Counter(
    "trainkit_datasets_checked_total",
    "Datasets whose check or fetch this process has ended, by state and code of the error.",
    ("state", "code"),
    registry=None,
)
QUESTIONS_CLOSED = Counter(
    "trainkit_questions_closed_total",
    "Predictions, previews and the like that this process has answered, or could not answer.",
    ("state",),
    registry=None,
)
OF_WORK: tuple[MetricWrapperBase, ...] = (
    JOBS_ENDED,
    ATTEMPTS_STARTED,
    ATTEMPTS_ENDED,
    QUEUED_SECONDS,
    DATASETS_CHECKED,
    QUESTIONS_CLOSED,
)


def blame(error: dict[str, Any] | None) -> tuple[str, str]:
    """(layer, code) of an error, as labels; empty without one."""
    return str((error or {}).get("layer") or ""), str((error or {}).get("code") or "")
