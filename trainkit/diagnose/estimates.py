"""Validation metrics of the weights that a run keeps, and whether another run is better beyond the noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from trainkit.diagnose.record import Record, Series
from trainkit.spec import JobSpec
from trainkit.spec.facts import is_classification
from trainkit.spec.metrics import DIRECTIONS, direction

PAIRED_NOISE_FACTOR = 0.3
"""Factor for the noise of paired runs: both are measured on the same samples, so the standard error of their difference is
smaller by sqrt(1 - r), r the correlation of their losses by sample. Measured for single changes on seven real datasets with
30 to 9769 validation samples: 0 to 0.44, mostly 0.3 or below."""
TENTATIVE_SHARE = 0.25
"""Share of the noise from which on a gain is worth combining with other small gains."""
Z95 = 1.96
"""Two-sided 95 % quantile of the standard normal distribution."""
Outcome = Literal["improved", "worse", "within_noise"]


@dataclass(frozen=True, slots=True)
class MetricEstimate:
    """A validation metric with its standard error, measured at the end of `epoch`."""

    value: float
    se: float | None
    epoch: int


@dataclass(frozen=True, slots=True)
class MetricChange:
    """Change of a metric between two runs. `gain` > 0 is an improvement; it counts if it exceeds `noise`."""

    metric: str
    before: float | None
    after: float | None
    gain: float | None
    noise: float | None
    outcome: Outcome

    @property
    def is_tentative_gain(self) -> bool:
        """Whether the metric improved by a quarter of the noise or more."""
        return self.gain is not None and self.noise is not None and self.gain > TENTATIVE_SHARE * self.noise

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def kept_metrics(record: Record) -> dict[str, MetricEstimate]:
    """Return the validation metrics `{val_loss: ..., val_accuracy: ...}` of the evaluation whose weights are kept.

    That is the first of the best by the monitored metric, or the last one with `restore_best: false`. Empty where no
    monitored value is finite.
    """
    monitored = record.get(record.spec.train.monitor or "")
    if not len(monitored):
        return {}
    index = len(monitored) - 1
    if record.spec.train.restore_best:
        best = np.argmin if direction(record.spec.train.monitor or "") == "min" else np.argmax
        index = int(best(monitored.value))
    step, epoch = int(monitored.step[index]), int(monitored.epoch[index])
    found: dict[str, MetricEstimate] = {}
    for name in (f"val_{metric}" for metric in DIRECTIONS):
        value = _at(record.get(name), step)
        if value is not None:
            found[name] = MetricEstimate(value, _at(record.get(f"{name}_se"), step), epoch)
    return found


def _at(series: Series, step: int) -> float | None:
    values = series.value[series.step == step]
    return float(values[-1]) if len(values) else None


def meaning_of_loss(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the settings that the value of a validation loss depends on besides the predictions."""
    smoothing = (spec.get("regularize") or {}).get("label_smoothing", 0.0)
    balance = spec.get("balance")
    weights = balance if balance == "class_weights" or isinstance(balance, dict) else None
    return spec.get("loss"), spec.get("target_scaling"), smoothing, weights


def comparison_metric(before: JobSpec, after: JobSpec) -> str:
    """Return the metric by which runs of two resolved specs are compared: the monitored metric of the first.

    A training metric is replaced by the validation loss; a validation loss that is defined differently in the second
    spec is replaced by val_accuracy, for regression by val_mse.
    """
    monitor = before.train.monitor or "val_loss"
    if not monitor.startswith("train_") and monitor != "val_loss":
        return monitor
    if meaning_of_loss(before.model_dump(mode="json")) == meaning_of_loss(after.model_dump(mode="json")):
        return "val_loss"
    return "val_accuracy" if before.task is not None and is_classification(before.task) else "val_mse"


def compare(metric: str, before: Mapping[str, MetricEstimate], after: Mapping[str, MetricEstimate]) -> MetricChange:
    """Compare a metric of two runs: noise = 0.3 sqrt(se_before^2 + se_after^2). A missing value is the worst one."""
    old, new = before.get(metric), after.get(metric)
    if old is None or new is None:
        outcome: Outcome = "within_noise" if old is new else "improved" if old is None else "worse"
        return MetricChange(metric, old.value if old else None, new.value if new else None, None, None, outcome)
    gain = (new.value - old.value) * (1 if direction(metric) == "max" else -1)
    noise = PAIRED_NOISE_FACTOR * math.hypot(standard_error(metric, before), standard_error(metric, after))
    outcome = "improved" if gain > noise else "worse" if gain < -noise else "within_noise"
    return MetricChange(metric, old.value, new.value, gain, noise, outcome)


def standard_error(metric: str, metrics: Mapping[str, MetricEstimate]) -> float:
    """Return the logged standard error of a metric, or an estimate; 0 where nothing is known.

    Classification: that of the accuracy. Regression: the relative standard error of the loss, times the metric (for R^2
    times 1 - R^2).
    """
    monitored = metrics[metric]
    if monitored.se is not None:
        return monitored.se
    accuracy, loss = metrics.get("val_accuracy"), metrics.get("val_loss")
    if accuracy is not None:
        return accuracy.se or 0.0
    if loss is None or loss.se is None or loss.value <= 0:
        return 0.0
    return loss.se / loss.value * abs(1 - monitored.value if metric == "val_r2" else monitored.value)


def wilson_interval(share: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Return Wilson's score interval of a share p of n > 0 trials (Wilson 1927), 95 % unless `z` says otherwise.

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n): within [0, 1], and not of width 0 at p = 0 or 1.
    """
    share = min(1.0, max(0.0, share))
    scale = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
