"""What good, quick models reach on a dataset and split: plain data, computed by `trainkit.fit.attainable`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.diagnose.t_distribution import critical_value
from trainkit.spec import JobSpec

CONFIDENCE = 0.95
VERSION = 1
"""Of the references: part of the key, so that what an earlier version measured is measured again."""


@dataclass(frozen=True, slots=True)
class Attainable:
    """The validation metric of the best reference model, chosen without the validation part, with its 95 % interval."""

    metric: str
    """accuracy of classes, r2 of numbers (the mean over targets)."""
    value: float
    low: float
    high: float
    reference: str
    """Which reference: the one with the least error in cross-validation inside the training part."""
    references: tuple[Mapping[str, Any], ...]
    """All of them, in the order they were fitted: `{name, state, value, low, high, recall, cross_validation, seconds,
    reason}`. `state`: fitted, stopped (out of time), left_out (not begun, for lack of time), failed (`reason` says why).
    """
    samples: int
    """Of the validation part, that were predicted."""
    train_samples: int
    """That the references were fitted on: a random share of a large training part."""
    train_share: float
    """`train_samples` / samples of the training part."""
    seconds: float
    limit_seconds: float
    complete: bool
    """Whether every reference ended within the limit."""
    key: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "references": [dict(row) for row in self.references]}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Attainable:
        """What `as_dict` gave; other fields are passed over."""
        known = {field.name: document[field.name] for field in fields(cls)}
        return cls(**{**known, "references": tuple(known["references"])})

    @property
    def is_known(self) -> bool:
        """Whether it says what can be reached: a constant does only where no other reference was left out."""
        return self.complete or self.reference != "constant"

    def worth_repeating(self, seconds: float) -> bool:
        """Whether references were left out or stopped, and `seconds` are at least twice the time that they had."""
        return not self.complete and seconds >= 2 * self.limit_seconds


def attainable_key(spec: JobSpec) -> str:
    """Digest of what a resolved spec says of data and split: equal keys have the same samples, targets and parts.

    Dataset and columns, task, windows and split count; model, preprocessing, balance and training do not.
    """
    depends_on = {
        "version": VERSION,
        "dataset": spec.dataset.model_dump(mode="json"),
        "task": spec.task,
        "split": spec.split.model_dump(mode="json"),
        "columns_beside_images": spec.model.kind == "multimodal",
    }
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:32]


def r2_interval(
    truth: NDArray[np.float64], predicted: NDArray[np.float64], lag: int = 0
) -> tuple[float, float, float] | None:
    """Return R2 with its 95 % interval, from targets and predictions (n, k); None for n < 3 or a constant target.

    U = 1 - R2 = mean over targets of sum e^2 / sum (y - mean y)^2 is a ratio, which is skew: the interval is that of its
    logarithm, U exp(+-t s), with the jackknife's standard error s (Efron and Stein 1981) and Student's t of n - 1 degrees
    of freedom. `lag` > 0, for samples in the order of time: Newey and West's (1987) variance with so many lags.
    """
    n = len(truth)
    if n < 3:
        return None
    squares, deviations = (truth - predicted) ** 2, (truth - truth.mean(0)) ** 2
    error, spread = squares.sum(0), deviations.sum(0)
    if not (spread > 0).all() or not np.isfinite(squares).all():
        return None
    share = float((error / spread).mean())
    if share == 0:
        return 1.0, 1.0, 1.0
    # without sample i: sum (y - mean y)^2 loses n/(n-1) (y_i - mean y)^2
    spreads = np.maximum(spread - n / (n - 1) * deviations, 1e-12 * spread)
    shares = np.maximum(((error - squares) / spreads).mean(1), 1e-12 * share)
    pseudo_values = -(n - 1) * np.log(shares)
    reach = critical_value(CONFIDENCE, n - 1) * math.sqrt(long_run_variance(pseudo_values, lag) / n)
    reach = min(reach, 100.0)
    return 1 - share, 1 - share * math.exp(reach), 1 - share * math.exp(-reach)


def long_run_variance(values: NDArray[np.float64], lag: int) -> float:
    """Variance of sqrt(n) times the mean: s^2, plus 2 sum_j (1 - j/(L+1)) c_j of the autocovariances up to lag L."""
    n = len(values)
    centred = values - values.mean()
    total = float(centred @ centred)
    for j in range(1, min(lag, n - 1) + 1):
        total += 2 * (1 - j / (lag + 1)) * float(centred[:-j] @ centred[j:])
    return max(total, 0.0) / (n - 1)
