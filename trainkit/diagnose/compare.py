"""Whether one way of training is better than another, from the figures of several runs. Pure functions, numpy only.

A figure that is not finite (a run that diverged) is named by its place, and nothing is computed: an average without it
would speak of other runs than were asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.diagnose.t_distribution import critical_value, two_sided_p

CONFIDENCE = 0.95
SAME = 1e-12
"""Differences that vary by less than this share of the figures vary by rounding alone."""

Direction = Literal["max", "min"]
Verdict = Literal["better", "worse", "cannot_tell"]


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean, sd with n - 1, standard error sd/sqrt(n), and Student's interval mean -+ t(n-1) se.

    `sd`, `se`, `low` and `high` are None for a single figure; all are where a figure is not finite.
    """

    n: int
    mean: float | None
    sd: float | None = None
    se: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float = CONFIDENCE
    not_finite: tuple[int, ...] = ()
    """Places of the figures that are NaN or infinite."""

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
    """B against A on the same splits. `difference`, `low` and `high` are of B - A; wins are splits where B is better."""

    verdict: Verdict
    sentence: str
    metric: str
    better: Direction
    n: int
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    """Two-sided; of the corrected test where `test_share` was given, else of the plain one."""
    paired_t_p: float | None
    """Of the plain paired t-test, which takes the splits for independent: too small where training data is shared."""
    test_share: float | None
    wilcoxon: SignedRank | None
    wins: int
    ties: int
    losses: int
    not_finite: tuple[int, ...] = ()
    """Splits where a figure is NaN or infinite."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class McNemar:
    """Two models on the same samples: how many only A, and only B, has right, and the exact two-sided p."""

    only_a: int
    only_b: int
    p: float


def summary(values: Sequence[float], confidence: float = CONFIDENCE) -> Summary:
    """The figures of several runs in a few. Raises ValueError for none."""
    figures = _figures(values)
    if bad := _not_finite(figures):
        return Summary(len(figures), None, confidence=confidence, not_finite=bad)
    mean = float(figures.mean())
    if len(figures) < 2:
        return Summary(len(figures), mean, confidence=confidence)
    sd = float(figures.std(ddof=1))
    se = sd / math.sqrt(len(figures))
    reach = critical_value(confidence, len(figures) - 1) * se
    return Summary(len(figures), mean, sd, se, mean - reach, mean + reach, confidence)


def compare(
    a: Sequence[float],
    b: Sequence[float],
    *,
    better: Direction = "max",
    test_share: float | None = None,
    metric: str = "score",
    names: tuple[str, str] = ("A", "B"),
    confidence: float = CONFIDENCE,
) -> Comparison:
    """Whether B is better than A, where a[i] and b[i] were measured on the same i-th split.

    `test_share` = n_test / n_train of a split: the variance of the mean difference is then (1/k + n_test/n_train) s^2 in
    place of s^2/k, since k-fold's and repeated random sub-sampling's training parts overlap (Nadeau and Bengio 2003).
    Left out, the splits are taken for independent. Raises ValueError for lists of different lengths, or empty ones.
    """
    first, second = _figures(a), _figures(b)
    if len(first) != len(second):
        raise ValueError(f"figures of the same splits are compared: {len(first)} and {len(second)} were given")
    if test_share is not None and not test_share > 0:
        raise ValueError(f"n_test / n_train is above 0, got {test_share}")
    about = _About(metric, better, names, confidence, test_share)
    bad = tuple(sorted({*_not_finite(first), *_not_finite(second)}))
    if bad:
        return _unfinished(about, len(first), bad)
    return _compared(about, second - first, float(max(np.abs(first).max(), np.abs(second).max())))


def wilcoxon(differences: Sequence[float]) -> SignedRank | None:
    """Exact for any n: every sign pattern of the ranks at hand is as likely. None where all differences are 0.

    Zeros are left out and equal sizes share their mean rank (Wilcoxon 1945); p = 2 min(P(W <= w), P(W >= w)), at most 1.
    """
    own = _figures(differences)
    own = own[own != 0]
    if not len(own):
        return None
    _, inverse, counts = np.unique(np.abs(own), return_inverse=True, return_counts=True)
    twice = (2 * np.cumsum(counts) - counts + 1)[inverse]  # twice the midranks: whole numbers
    chances = np.zeros(int(twice.sum()) + 1)
    chances[0] = 1.0
    for rank in twice.tolist():
        added = np.zeros_like(chances)
        added[rank:] = chances[:-rank]
        chances = (chances + added) / 2
    total = int(twice[own > 0].sum())
    p = 2 * min(float(chances[: total + 1].sum()), float(chances[total:].sum()))
    return SignedRank(total / 2, min(1.0, p), len(own))


def mcnemar(correct_a: Sequence[bool], correct_b: Sequence[bool]) -> McNemar:
    """The exact form of McNemar's test (1947): min(1, 2 P(X <= min(only_a, only_b))) of X ~ Bin(only_a + only_b, 1/2).

    `correct_*`: for each sample whether that model has it right. Raises ValueError for lists of different lengths.
    """
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    if a.shape != b.shape:
        raise ValueError(f"answers to the same samples are compared: {a.size} and {b.size} were given")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n, least = only_a + only_b, min(only_a, only_b)
    i = np.arange(1, least + 1)
    log_chances = np.concatenate([[0.0], np.cumsum(np.log((n - i + 1) / i))]) - n * math.log(2)
    return McNemar(only_a, only_b, min(1.0, 2 * float(np.exp(log_chances).sum())))


@dataclass(frozen=True, slots=True)
class _About:
    metric: str
    better: Direction
    names: tuple[str, str]
    confidence: float
    test_share: float | None


def _unfinished(about: _About, n: int, bad: tuple[int, ...]) -> Comparison:
    """Places count from 0 for programs, and from 1 for people."""
    where = ", ".join(str(place + 1) for place in bad)
    sentence = f"{_pair(about)} cannot be told apart: no finite {about.metric} in {where} of {n}."
    nothing = (None,) * 5
    return Comparison(
        "cannot_tell", sentence, about.metric, about.better, n, *nothing, about.test_share, None, 0, 0, 0, bad
    )


def _compared(about: _About, differences: NDArray[np.float64], size: float) -> Comparison:
    k = len(differences)
    mean = float(differences.mean())
    spread = float(differences.std(ddof=1)) if k > 1 else 0.0
    low = high = p = plain = None
    if spread > SAME * size:
        plain = two_sided_p(mean / (spread / math.sqrt(k)), k - 1)
        share = 1 / k + (about.test_share or 0.0)
        error = spread * math.sqrt(share)
        p = two_sided_p(mean / error, k - 1)
        reach = critical_value(about.confidence, k - 1) * error
        low, high = mean - reach, mean + reach
    gained = differences if about.better == "max" else -differences
    wins, losses = int((gained > 0).sum()), int((gained < 0).sum())
    clear = p is not None and p < 1 - about.confidence
    verdict: Verdict = "cannot_tell"
    if clear:
        verdict = "better" if (mean > 0) == (about.better == "max") else "worse"
    figures = _in_words(about, k, mean, low, high, p)
    said = f"{about.names[1]} is {verdict} than {about.names[0]}" if clear else f"{_pair(about)} cannot be told apart"
    ranks = wilcoxon(differences.tolist())
    return Comparison(
        verdict,
        f"{said}: {figures}.",
        about.metric,
        about.better,
        k,
        mean,
        low,
        high,
        p,
        plain,
        about.test_share,
        ranks,
        wins,
        k - wins - losses,
        losses,
    )


def _pair(about: _About) -> str:
    return f"{about.names[1]} and {about.names[0]}"


def _in_words(about: _About, k: int, mean: float, low: float | None, high: float | None, p: float | None) -> str:
    difference = f"{mean:+.3g} {about.metric}"
    if p is None or low is None or high is None:
        if k == 1:
            return f"{difference} on a single split, which says nothing of chance"
        return f"{difference} on each of {k} splits, without a spread to test by"
    chance = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    corrected = ", corrected for shared training data" if about.test_share is not None else ""
    return f"{difference} ({about.confidence:.0%} CI {low:.3g} to {high:.3g}, {chance}{corrected})".replace("%", " %")


def _figures(values: Sequence[float]) -> NDArray[np.float64]:
    figures = np.asarray(values, np.float64).reshape(-1)
    if not len(figures):
        raise ValueError("there are no figures")
    return figures


def _not_finite(figures: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(~np.isfinite(figures)).tolist())
