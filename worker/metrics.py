"""Prometheus metrics of a worker, counted by its supervisors and its housekeeping. No job id is ever a label."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from service.instrumentation import FAST_BUCKETS, SLOW_BUCKETS

SLOTS = Gauge(
    "trainkit_worker_slots", "Jobs that this worker can do at a time.", multiprocess_mode="livesum", registry=None
)
BUSY_SLOTS = Gauge(
    "trainkit_worker_slots_busy",
    "Slots that have work now, by queue.",
    ("queue",),
    multiprocess_mode="livesum",
    registry=None,
)
RENEWALS = Counter(
    "trainkit_worker_lease_renewals_total",
    "Renewals of leases, by result: renewed, database_away (tried again), lost (the lease ran out).",
    ("result",),
    registry=None,
)
FENCED = Counter(
    "trainkit_worker_fenced_total",
    "Writes refused because another worker holds the work.",
    registry=None,
)
METRIC_ROWS = Counter(
    "trainkit_worker_metric_rows_total",
    "Rows shipped into metric logs; counted twice after a lost answer of the database.",
    registry=None,
)
BEHIND_BYTES = Gauge(
    "trainkit_worker_spool_behind_bytes",
    "Bytes in the spools of training processes that are not in the database yet.",
    multiprocess_mode="livesum",
    registry=None,
)
CHECKPOINT_SECONDS = Histogram(
    "trainkit_worker_checkpoint_store_seconds",
    "Storing one checkpoint: copying its file and writing its row.",
    buckets=FAST_BUCKETS,
    registry=None,
)
CHECKPOINT_BYTES = Counter("trainkit_worker_checkpoint_bytes_total", "Bytes of checkpoints stored.", registry=None)
CHECKPOINT_FAILURES = Counter(
    "trainkit_worker_checkpoint_failures_total", "Checkpoints that could not be stored.", registry=None
)
RESIDENT_BYTES = Gauge(
    "trainkit_worker_training_resident_bytes",
    "Resident memory of the training processes that run now.",
    multiprocess_mode="livesum",
    registry=None,
)
SAMPLES_PER_SECOND = Gauge(
    "trainkit_worker_samples_per_second",
    "Training speed of the running jobs together.",
    multiprocess_mode="livesum",
    registry=None,
)
STEPS = Counter(
    "trainkit_worker_steps_total", "Optimizer steps, those repeated after a resume included.", registry=None
)
TURN = Gauge(
    "trainkit_worker_housekeeping_turn",
    "1 while this worker does the housekeeping; exactly one worker does.",
    multiprocess_mode="livesum",
    registry=None,
)
ROUND_SECONDS = Histogram(
    "trainkit_worker_housekeeping_round_seconds",
    "Rounds of housekeeping, tidying included.",
    buckets=(*FAST_BUCKETS, 300, 900),
    registry=None,
)
ROUND_FAILURES = Counter(
    "trainkit_worker_housekeeping_failures_total",
    "Rounds of housekeeping that failed, by reason: database_away, defect.",
    ("reason",),
    registry=None,
)
ATTEMPT_SECONDS = Histogram(
    "trainkit_worker_attempt_seconds",
    "Attempts at jobs, from the claim to the end, whatever the end was.",
    buckets=SLOW_BUCKETS,
    registry=None,
)
for _result in ("renewed", "database_away", "lost"):
    RENEWALS.labels(_result)
for _reason in ("database_away", "defect"):
    ROUND_FAILURES.labels(_reason)

WORKER_METRICS: tuple[MetricWrapperBase, ...] = (
    SLOTS,
    BUSY_SLOTS,
    RENEWALS,
    FENCED,
    METRIC_ROWS,
    BEHIND_BYTES,
    CHECKPOINT_SECONDS,
    CHECKPOINT_BYTES,
    CHECKPOINT_FAILURES,
    RESIDENT_BYTES,
    SAMPLES_PER_SECOND,
    STEPS,
    ATTEMPT_SECONDS,
    TURN,
    ROUND_SECONDS,
    ROUND_FAILURES,
)
