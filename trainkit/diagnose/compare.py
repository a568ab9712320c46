"""Statistical comparison of two ways of training by the metrics of several runs. Pure functions, NumPy only.

Where a value is not finite (a run diverged) its position is reported and nothing is computed: an average without it
would describe other runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.diagnose.t_distribution import critical_value, two_sided_p
from trainkit.spec.metrics import Bounds

CONFIDENCE = 0.95
ROUNDING = 1e-12
"""Relative spread of the differences below which it is rounding error."""

UNBOUNDED: Bounds = (None, None)
Direction = Literal["max", "min"]
Conclusion = Literal["better", "worse", "cannot_tell"]


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean, sd with n - 1, standard error, and Student's interval with n - 1 degrees of freedom.

    `sd`, `se`, `low` and `high` are None for a single value; all are None where a value is not finite.
    """

    n: int
    mean: float | None
    sd: float | None = None
    se: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float = CONFIDENCE
    not_finite: tuple[int, ...] = ()
    """Positions of the values that are NaN or infinite."""
    test_share: float | None = None
    """n_test / n_train of the splits, by which `se` is corrected; None: se = sd/sqrt(n)."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SignedRank:
    """Wilcoxon's signed-rank test: the sum of positive ranks, and the exact two-sided p."""

    statistic: float
    p: float
    n: int
    """Differences other than 0."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Comparison of B with A on the same splits. `difference`, `low`, `high`: of B - A; `wins`: splits where B is better."""

    verdict: Conclusion
    summary: str
    metric: str
    better: Direction
    n: int
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    """Two-sided; of the corrected test where `test_share` was given, else of the plain one."""
    paired_t_p: float | None
    """Of the plain paired t-test, which assumes independent splits: too small where training data is shared."""
    test_share: float | None
    wilcoxon: SignedRank | None
    wins: int
    ties: int
    losses: int
    not_finite: tuple[int, ...] = ()
    """Splits where a value is NaN or infinite."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class McNemar:
    """Two models on the same samples: numbers of samples that only A or only B predicts correctly, and the two-sided p."""

    only_a: int
    only_b: int
    p: float


def summary(
    values: Sequence[float],
    confidence: float = CONFIDENCE,
    *,
    bounds: Bounds = UNBOUNDED,
    test_share: float | None = None,
) -> Summary:
    """Summarise the metrics of several runs, with an interval of their mean that keeps to the metric's bounds.

    Without bounds the interval is mean -+ t se. With bounds it is the same on the scale g, and is carried back: g is
    log((m - low) / (high - m)) between two bounds, log(m - low) above one, -log(high - m) below one, and by the delta
    method the standard error is |g'(mean)| se. Between 0 and 1 these are the logit intervals of Stata's `proportion`
    and of R's `svyciprop`. As se / (distance to a bound) goes to 0 they become mean -+ t se.

    Args:
        bounds: (least, largest) possible value; None: there is none.
        test_share: n_test / n_train, where each value is of another split of the same samples: se is then
            sd sqrt(1/k + n_test/n_train), since the training parts overlap (Nadeau and Bengio 2003), as in `compare`.

    Raises:
        ValueError: The list is empty.
    """
    array = _as_array(values)
    if not_finite_places := _not_finite(array):
        return Summary(len(array), None, confidence=confidence, not_finite=not_finite_places)
    mean = float(array.mean())
    if len(array) < 2:
        return Summary(len(array), mean, confidence=confidence)
    sd = float(array.std(ddof=1))
    se = sd * math.sqrt(1 / len(array) + (test_share or 0.0))
    reach = critical_value(confidence, len(array) - 1) * se
    low, high = _interval(mean, reach, bounds)
    return Summary(len(array), mean, sd, se, low, high, confidence, (), test_share)


def _interval(mean: float, reach: float, bounds: Bounds) -> tuple[float, float]:
    """Carry mean -+ reach over to the bounds. A mean at a bound, where all values are, is its own interval."""
    least, largest = bounds
    below = math.inf if least is None else mean - least
    above = math.inf if largest is None else largest - mean
    if min(below, above) <= 0:
        return mean, mean
    if least is None and largest is None:
        return mean - reach, mean + reach
    if least is None:
        return mean + above - above * math.exp(reach / above), mean + above - above * math.exp(-reach / above)
    if largest is None:
        return least + below * math.exp(-reach / below), least + below * math.exp(reach / below)
    width = largest - least
    logit, step = math.log(below / above), reach * width / (below * above)
    return least + width * _sigmoid(logit - step), least + width * _sigmoid(logit + step)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def compare(
    a: Sequence[float],
    b: Sequence[float],
    *,
    better: Direction = "max",
    test_share: float | None = None,
    metric: str = "score",
    names: tuple[str, str] = ("A", "B"),
    confidence: float = CONFIDENCE,
    bounds: Bounds = UNBOUNDED,
) -> Comparison:
    """Compare B with A, where a[i] and b[i] were measured on the same i-th split.

    `test_share` = n_test / n_train of a split: the variance of the mean difference is then (1/k + n_test/n_train) s^2 in
    place of s^2/k, since k-fold's and repeated random sub-sampling's training parts overlap (Nadeau and Bengio 2003).
    Without it the splits count as independent. A metric with two `bounds` has differences of at most largest - least:
    the interval is cut off there, which leaves its coverage and its p as they are. Raises ValueError for lists of
    different lengths, or empty ones.
    """
    first, second = _as_array(a), _as_array(b)
    if len(first) != len(second):
        raise ValueError(f"a and b must hold one value for each split; got {len(first)} and {len(second)} values")
    if test_share is not None and not test_share > 0:
        raise ValueError(f"test_share (n_test / n_train) must be above 0; got {test_share}")
    least, largest = bounds
    most = math.inf if least is None or largest is None else largest - least
    settings = _ComparisonSettings(metric, better, names, confidence, test_share, most)
    not_finite_places = tuple(sorted({*_not_finite(first), *_not_finite(second)}))
    if not_finite_places:
        return _not_comparable(settings, len(first), not_finite_places)
    return _comparison_of(settings, second - first, float(max(np.abs(first).max(), np.abs(second).max())))


def wilcoxon(differences: Sequence[float]) -> SignedRank | None:
    """Return Wilcoxon's signed-rank test, exact for any n; None where all differences are 0.

    Zeros are left out and equal sizes share their mean rank (Wilcoxon 1945); p = 2 min(P(W <= w), P(W >= w)), at most 1.
    """
    nonzero = _as_array(differences)
    nonzero = nonzero[nonzero != 0]
    if not len(nonzero):
        return None
    _, inverse, counts = np.unique(np.abs(nonzero), return_inverse=True, return_counts=True)
    twice = (2 * np.cumsum(counts) - counts + 1)[inverse]  # twice the midranks: whole numbers
    chances = np.zeros(int(twice.sum()) + 1)
    chances[0] = 1.0
    for rank in twice.tolist():
        added = np.zeros_like(chances)
        added[rank:] = chances[:-rank]
        chances = (chances + added) / 2
    total = int(twice[nonzero > 0].sum())
    p = 2 * min(float(chances[: total + 1].sum()), float(chances[total:].sum()))
    return SignedRank(total / 2, min(1.0, p), len(nonzero))


def mcnemar(correct_a: Sequence[bool], correct_b: Sequence[bool]) -> McNemar:
    """Return the exact form of McNemar's test (1947): min(1, 2 P(X <= min(only_a, only_b))) of X ~ Bin(only_a + only_b, 1/2).

    `correct_*`: for each sample whether that model predicts it correctly. Raises ValueError for lists of different lengths.
    """
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    if a.shape != b.shape:
        raise ValueError(f"correct_a and correct_b must be of the same samples; got {a.size} and {b.size} values")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n, least = only_a + only_b, min(only_a, only_b)
    i = np.arange(1, least + 1)
    log_chances = np.concatenate([[0.0], np.cumsum(np.log((n - i + 1) / i))]) - n * math.log(2)
    return McNemar(only_a, only_b, min(1.0, 2 * float(np.exp(log_chances).sum())))


@dataclass(frozen=True, slots=True)
class _ComparisonSettings:
    metric: str
    better: Direction
    names: tuple[str, str]
    confidence: float
    test_share: float | None
    most_difference: float


def _not_comparable(settings: _ComparisonSettings, n: int, not_finite_places: tuple[int, ...]) -> Comparison:
    """Return a comparison without numbers. `not_finite` counts from 0, the summary from 1."""
    where = ", ".join(str(place + 1) for place in not_finite_places)
    summary = f"{_both_names(settings)} cannot be told apart: no finite {settings.metric} in {where} of {n}."
    nothing = (None,) * 5
    return Comparison(
        "cannot_tell",
        summary,
        settings.metric,
        settings.better,
        n,
        *nothing,
        settings.test_share,
        None,
        0,
        0,
        0,
        not_finite_places,
    )


def _comparison_of(settings: _ComparisonSettings, differences: NDArray[np.float64], size: float) -> Comparison:
    k = len(differences)
    mean = float(differences.mean())
    spread = float(differences.std(ddof=1)) if k > 1 else 0.0
    low = high = p = plain = None
    if spread > ROUNDING * size:
        plain = two_sided_p(mean / (spread / math.sqrt(k)), k - 1)
        share = 1 / k + (settings.test_share or 0.0)
        error = spread * math.sqrt(share)
        p = two_sided_p(mean / error, k - 1)
        reach = critical_value(settings.confidence, k - 1) * error
        most = settings.most_difference
        low, high = max(-most, mean - reach), min(most, mean + reach)
    gained = differences if settings.better == "max" else -differences
    wins, losses = int((gained > 0).sum()), int((gained < 0).sum())
    clear = p is not None and p < 1 - settings.confidence
    verdict: Conclusion = "cannot_tell"
    if clear:
        verdict = "better" if (mean > 0) == (settings.better == "max") else "worse"
    numbers = _describe(settings, k, mean, low, high, p)
    conclusion = (
        f"{settings.names[1]} is {verdict} than {settings.names[0]}"
        if clear
        else f"{_both_names(settings)} cannot be told apart"
    )
    ranks = wilcoxon(differences.tolist())
    return Comparison(
        verdict,
        f"{conclusion}: {numbers}.",
        settings.metric,
        settings.better,
        k,
        mean,
        low,
        high,
        p,
        plain,
        settings.test_share,
        ranks,
        wins,
        k - wins - losses,
        losses,
    )


def _both_names(settings: _ComparisonSettings) -> str:
    return f"{settings.names[1]} and {settings.names[0]}"


def _describe(
    settings: _ComparisonSettings, k: int, mean: float, low: float | None, high: float | None, p: float | None
) -> str:
    difference = f"{mean:+.3g} {settings.metric}"
    if p is None or low is None or high is None:
        if k == 1:
            return f"{difference} on a single split, which cannot be tested"
        return f"{difference} on each of {k} splits, without a spread, which cannot be tested"
    chance = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    corrected = ", corrected for shared training data" if settings.test_share is not None else ""
    return f"{difference} ({settings.confidence:.0%} CI {low:.3g} to {high:.3g}, {chance}{corrected})".replace(
        "%", " %"
    )


def _as_array(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64).reshape(-1)
    if not len(array):
        raise ValueError("at least one value is needed; got none")
    return array


def _not_finite(array: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(~np.isfinite(array)).tolist())
