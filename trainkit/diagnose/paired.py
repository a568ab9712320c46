"""Paired statistics of two runs on the same validation samples: difference, interval, p-value, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.diagnose.t_distribution import critical_value, two_sided_p

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class PairedEffect:
    """Mean gain of one run over another on the same samples; above 0 is better.

    `low` and `high`: 95 % interval of the gain; `p_value`: two-sided, of no difference; `samples`: pairs.
    """

    gain: float
    se: float
    low: float
    high: float
    p_value: float
    samples: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def paired_effect(before: Floats, after: Floats, *, run_variance: float = 0.0) -> PairedEffect:
    """Return the gain mean(after - before) of scores (n,), by Student's paired t.

    se^2 = var(after - before) / n + `run_variance`, the variance of the difference of two trainings that differ by
    their seed alone (`variance_between_runs`). Fewer than two pairs have an infinite interval.
    """
    differences = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    n = len(differences)
    if n < 2:
        return _effect(float(differences.mean()) if n else 0.0, 0.0, math.inf, 1, n)
    gain = float(differences.mean())
    return _effect(gain, gain, math.sqrt(float(differences.var(ddof=1)) / n + run_variance), n - 1, n)


def paired_shares(
    before: NDArray[np.bool_], after: NDArray[np.bool_], classes: Ints | None = None, *, run_variance: float = 0.0
) -> PairedEffect:
    """Return the gain in the share of hits (n,): the accuracy, or with `classes` (n,) the mean recall over classes.

    Of each class b pairs are won, c lost, of m: the gain is (b - c) / m. Interval and p-value are the adjusted Wald
    ones of Agresti and Min (2005), which add half a pair to each of the four cells: centre (b - c) / (m + 2), variance
    ((b + c + 1) - (b - c)^2 / (m + 2)) / (m + 2)^2. They are right for few pairs too, where all of a class change.
    """
    groups = np.zeros(len(before), np.int64) if classes is None else np.asarray(classes)
    names = np.unique(groups)
    if not len(names):
        return _effect(0.0, 0.0, math.inf, 1, 0)
    gains, centres, variances = [], [], []
    for name in names:
        inside = groups == name
        won = float((after[inside] & ~before[inside]).sum())
        lost = float((before[inside] & ~after[inside]).sum())
        m = float(inside.sum())
        gains.append((won - lost) / m)
        centres.append((won - lost) / (m + 2))
        variances.append((won + lost + 1 - (won - lost) ** 2 / (m + 2)) / (m + 2) ** 2)
    se = math.sqrt(sum(variances) / len(names) ** 2 + run_variance)
    return _effect(float(np.mean(gains)), float(np.mean(centres)), se, max(1, len(before) - 1), len(before))


def mean_effect(effects: Sequence[PairedEffect], run_variance: float) -> PairedEffect:
    """Return the mean of the effects of several pairs of runs on the same samples.

    The samples' part of the variance is that of one pair: samples do not become more by training again. `run_variance`
    is in each effect already, and falls with the number of pairs.
    """
    count = len(effects)
    sampling = float(np.mean([max(0.0, one.se**2 - run_variance) for one in effects]))
    gain = float(np.mean([one.gain for one in effects]))
    centre = float(np.mean([(one.low + one.high) / 2 for one in effects]))
    n = effects[0].samples
    return _effect(gain, centre, math.sqrt(sampling + run_variance / count), max(1, n - 1), n)


def variance_between_runs(before: Floats, after: Floats) -> float:
    """Return the variance that training adds to a paired difference, from two runs that differ by their seed alone.

    mean(after - before)^2 less what the samples explain of it, var / n; at least 0. One pair of runs is one degree of
    freedom: it widens intervals where seeds matter, and says nothing certain where they happen to agree.
    """
    differences = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    if len(differences) < 2:
        return 0.0
    return max(0.0, float(differences.mean()) ** 2 - float(differences.var(ddof=1)) / len(differences))


def holm(p_values: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """Return p-values adjusted for their number by Holm (1979): they hold for all of them together.

    In ascending order of p / w, p_(i) becomes the largest of p_(j) / w_(j) * (w_(j) + ... + w_(m)), j <= i, at most 1.
    Equal weights give (m - j + 1) p_(j). Weights > 0 must be known before the p-values: what is expected gets more.
    """
    shares = [1.0] * len(p_values) if weights is None else list(weights)
    order = sorted(range(len(p_values)), key=lambda place: (p_values[place] / shares[place], place))
    adjusted, largest, left = [1.0] * len(p_values), 0.0, sum(shares)
    for place in order:
        largest = max(largest, min(1.0, left * p_values[place] / shares[place]))
        adjusted[place] = largest
        left -= shares[place]
    return adjusted


def _effect(gain: float, centre: float, se: float, df: int, n: int) -> PairedEffect:
    if not math.isfinite(se):
        return PairedEffect(gain, se, -math.inf, math.inf, 1.0, n)
    if se == 0:
        return PairedEffect(gain, 0.0, gain, gain, 1.0 if centre == 0 else 0.0, n)
    width = _critical(df) * se
    return PairedEffect(gain, se, centre - width, centre + width, two_sided_p(centre / se, df), n)


@cache
def _critical(df: int) -> float:
    return critical_value(CONFIDENCE, df)
