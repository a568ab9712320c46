"""The validation figures of the weights that a run keeps, and whether those of another run are better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from trainkit.diagnose.record import Record, Series
from trainkit.spec import JobSpec
from trainkit.spec.metrics import DIRECTIONS, direction
from trainkit.spec.resolve import is_classification

PAIRED = 0.3
"""Two runs are measured on the same samples: the standard error of their difference is less than that of independent
figures, by sqrt(1 - r) with r the correlation of their losses, sample by sample. Measured where one setting was changed,
on seven real datasets with 30 to 9769 validation samples: 0 to 0.44, most at 0.3 or below."""
LEANING = 0.25
"""Of the noise: a gain of which something may be made together with others, if not by itself."""
Z95 = 1.96
"""Two-sided 95 % quantile of the standard normal distribution."""
Outcome = Literal["improved", "worse", "within_noise"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric of the validation part, with its standard error; `epoch` is that of the evaluation."""

    value: float
    se: float | None
    epoch: int


@dataclass(frozen=True, slots=True)
class Compared:
    """What became of a figure. `gain` is above 0 where it got better; it counts beyond `noise`."""

    metric: str
    before: float | None
    after: float | None
    gain: float | None
    noise: float | None
    outcome: Outcome

    @property
    def leans(self) -> bool:
        """Whether the figure got better at all, be it within the noise."""
        return self.gain is not None and self.noise is not None and self.gain > LEANING * self.noise

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def kept_figures(record: Record) -> dict[str, Figure]:
    """`{val_loss: ..., val_accuracy: ...}` at the evaluation whose weights are kept: the best of the monitored metric,
    of equal ones the first; the last one with `restore_best: false`. Empty where there is none, or nothing finite."""
    monitored = record.get(record.spec.train.monitor or "")
    if not len(monitored):
        return {}
    place = len(monitored) - 1
    if record.spec.train.restore_best:
        best = np.argmin if direction(record.spec.train.monitor or "") == "min" else np.argmax
        place = int(best(monitored.value))
    step, epoch = int(monitored.step[place]), int(monitored.epoch[place])
    found: dict[str, Figure] = {}
    for name in (f"val_{metric}" for metric in DIRECTIONS):
        value = _at(record.get(name), step)
        if value is not None:
            found[name] = Figure(value, _at(record.get(f"{name}_se"), step), epoch)
    return found


def _at(series: Series, step: int) -> float | None:
    values = series.value[series.step == step]
    return float(values[-1]) if len(values) else None


def meaning_of_loss(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    """All that the value of a validation loss depends on beside the predictions."""
    smoothing = (spec.get("regularize") or {}).get("label_smoothing", 0.0)
    return spec.get("loss"), spec.get("target_scaling"), smoothing, spec.get("balance") == "class_weights"


def figure_of(before: JobSpec, after: JobSpec) -> str:
    """The metric by which runs of these two resolved specs are compared: the one that the first monitors.

    A loss that means something else in the second gives way to val_accuracy, of numbers val_mse; so does a training
    metric to the validation loss: what chooses must not have been trained on.
    """
    monitor = before.train.monitor or "val_loss"
    if not monitor.startswith("train_") and monitor != "val_loss":
        return monitor
    if meaning_of_loss(before.model_dump(mode="json")) == meaning_of_loss(after.model_dump(mode="json")):
        return "val_loss"
    return "val_accuracy" if before.task is not None and is_classification(before.task) else "val_mse"


def compare(metric: str, before: Mapping[str, Figure], after: Mapping[str, Figure]) -> Compared:
    """noise = PAIRED sqrt(se_before^2 + se_after^2). A figure that is missing is worse than any other."""
    old, new = before.get(metric), after.get(metric)
    if old is None or new is None:
        outcome: Outcome = "within_noise" if old is new else "improved" if old is None else "worse"
        return Compared(metric, old.value if old else None, new.value if new else None, None, None, outcome)
    gain = (new.value - old.value) * (1 if direction(metric) == "max" else -1)
    noise = PAIRED * math.hypot(standard_error(metric, before), standard_error(metric, after))
    outcome = "improved" if gain > noise else "worse" if gain < -noise else "within_noise"
    return Compared(metric, old.value, new.value, gain, noise, outcome)


def standard_error(metric: str, figures: Mapping[str, Figure]) -> float:
    """The logged one; else estimated. mse, mae: the loss's, relative to it; 1 - R^2 the same; shares of samples (f1,
    recall ...): that of the accuracy, which they cannot fall below by much. 0 where nothing is known."""
    figure = figures[metric]
    if figure.se is not None:
        return figure.se
    accuracy, loss = figures.get("val_accuracy"), figures.get("val_loss")
    if accuracy is not None:
        return accuracy.se or 0.0
    if loss is None or loss.se is None or loss.value <= 0:
        return 0.0
    return loss.se / loss.value * abs(1 - figure.value if metric == "val_r2" else figure.value)


def wilson_interval(share: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Return Wilson's score interval of a share p of n > 0 trials (Wilson 1927), 95 % unless `z` says otherwise.

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n): within [0, 1], and not of width 0 at p = 0 or 1.
    """
    share = min(1.0, max(0.0, share))
    scale = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
