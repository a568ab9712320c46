"""How well one run predicts each validation sample: what paired comparisons are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.diagnose.paired import PairedEffect, mean_effect, paired_effect, paired_shares, variance_between_runs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST_SAMPLES = 4000
"""Validation samples that are kept of a run: a random draw of a larger part, the same of every run."""
LARGEST_LOSS = 16.0
"""-log of the least probability that is told apart from 0, 1e-7: one sample must not decide a mean."""
LARGEST_SQUARE = 25.0
"""In scores, an error of more than five standard deviations counts as one of five."""
DIGITS = 6


@dataclass(frozen=True)
class SampleScores:
    """Validation samples of a run, ascending by `index` (n,), the sample's row number in the dataset.

    Classes: `truth` (n,) class numbers, `predicted` (n,) the likeliest class, `confidence` (n,) its probability,
    `loss` (n,) -log p(truth), `score` (n,) = 1 - sum_k (p_k - [k = truth])^2, the quadratic score (Brier 1950).
    Numbers: `truth` (n,) in standard deviations about the mean, `loss` (n,) the squared and `absolute` (n,) the absolute
    error in the same unit, means over several targets; `score` = 1 - squared error.
    """

    index: Ints
    truth: Floats
    loss: Floats
    score: Floats
    predicted: Ints | None = None
    confidence: Floats | None = None
    absolute: Floats | None = None

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(n,) whether the class is predicted."""
        assert self.predicted is not None
        return np.equal(self.predicted, self.truth)

    @classmethod
    def of_classes(cls, index: Ints, truth: Ints, shares: Floats) -> SampleScores:
        """From probabilities (n, K); what is not finite counts as no prediction, equal shares."""
        broken: NDArray[np.bool_] = np.asarray(~np.isfinite(shares).all(axis=1))
        shares = np.where(broken[:, None], 1.0 / shares.shape[1], shares)
        rows = np.arange(len(truth))
        right = shares[rows, truth]
        squares = (shares**2).sum(1) - 2 * right + 1
        predicted = shares.argmax(1)
        return cls(
            index,
            truth.astype(np.float64),
            np.minimum(-np.log(np.maximum(right, 1e-300)), LARGEST_LOSS),
            1 - squares,
            predicted=predicted.astype(np.int64),
            confidence=shares[rows, predicted],
        )._kept()

    @classmethod
    def of_numbers(cls, index: Ints, truth: Floats, values: Floats) -> SampleScores:
        """From targets and predictions (n, k) in one unit; predictions that are not finite count as the mean."""
        truth, values = truth.reshape(len(truth), -1), values.reshape(len(values), -1)
        spread = truth.std(0)
        unit = np.where(spread > 0, spread, 1.0)
        z = (truth - truth.mean(0)) / unit
        error = np.where(np.isfinite(values), (values - truth) / unit, -z)
        # far outside of what is told apart, the square would overflow a float
        error = np.clip(error, -1e6, 1e6)
        squared = (error**2).mean(1)
        scored = np.minimum(error**2, LARGEST_SQUARE).mean(1)
        return cls(index, z.mean(1), squared, 1 - scored, absolute=np.abs(error).mean(1))._kept()

    def _kept(self) -> SampleScores:
        """The samples in order of their row numbers, at most `MOST_SAMPLES`, rounded to six digits."""
        rows = np.argsort(self.index, kind="stable")
        if len(rows) > MOST_SAMPLES:
            rows = np.sort(np.random.default_rng(0).permutation(len(rows))[:MOST_SAMPLES])
            rows = np.argsort(self.index, kind="stable")[rows]
        fields = {name: value for name, value in vars(self).items() if value is not None}
        return SampleScores(**{name: _rounded(value[rows]) for name, value in fields.items()})

    @classmethod
    def joined(cls, runs: Sequence[SampleScores]) -> SampleScores:
        """Those of several runs of one kind, each on samples of its own."""
        names = [name for name, value in vars(runs[0]).items() if isinstance(value, np.ndarray)]
        fields = {name: np.concatenate([getattr(one, name) for one in runs]) for name in names}
        order = np.argsort(fields["index"], kind="stable")
        return cls(**{name: value[order] for name, value in fields.items()})

    def constant(self) -> SampleScores:
        """What predicting the share of each class, or the mean, gives on the same samples."""
        if self.predicted is None:
            squared = np.minimum(self.truth**2, LARGEST_SQUARE)
            return SampleScores(self.index, self.truth, self.truth**2, 1 - squared, absolute=np.abs(self.truth))
        codes = self.truth.astype(np.int64)
        shares = np.bincount(codes) / max(len(codes), 1)
        return SampleScores.of_classes(self.index, codes, np.tile(shares, (len(codes), 1)))

    @property
    def at_least_constant(self) -> SampleScores:
        """Itself, or a constant prediction where that has the larger skill: how bad random weights are is chance."""
        return self if self.skill > 0 else self.constant()

    @cached_property
    def scale(self) -> float:
        """The score that lies between a constant prediction and a perfect one."""
        return max(1e-9, 1 - float(self.constant().score.mean())) if len(self.index) else 1.0

    @property
    def skill(self) -> float:
        """1 - (1 - mean score) / (1 - mean score of a constant prediction): 1 is perfect; of numbers about R^2."""
        return 1 - (1 - float(self.score.mean())) / self.scale if len(self.index) else 0.0

    def value(self, measure: str) -> float:
        """The metric by the samples: val_accuracy, val_recall, val_r2, val_mae, val_loss or `skill`."""
        if measure == "val_recall":
            return float(np.mean([self.correct[self.truth == name].mean() for name in np.unique(self.truth)]))
        if measure == "skill":
            return self.skill
        mean = float(self.of_samples(measure).mean())
        return {"val_accuracy": mean, "val_r2": 1 + mean}.get(measure, -mean)

    def of_samples(self, measure: str) -> Floats:
        """(n,) the samples' parts of a metric that is their mean, larger is better: all but the mean recall."""
        if measure == "val_accuracy":
            return self.correct.astype(np.float64)
        if measure == "val_mae" and self.absolute is not None:
            return -self.absolute
        return self.score / self.scale if measure == "skill" else -self.loss

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {name: value.tolist() for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> SampleScores:
        """What `as_dict` gave."""
        fields: dict[str, Any] = {
            name: np.array(values, np.int64 if name in ("index", "predicted") else np.float64)
            for name, values in stored.items()
        }
        return cls(**fields)


def gain(
    measure: str, before: Sequence[SampleScores], after: Sequence[SampleScores], spread: float = 0.0
) -> PairedEffect:
    """Return the gain of one spec over another by a metric, on the samples that all runs validate; above 0 is better.

    `before` and `after` are runs that differ by their seeds alone, as many of each, and compared in their mean.
    `spread`: variance of the difference of two such runs beside what their samples explain; it widens the interval.
    """
    runs = _common([*before, *after])
    before, after = runs[: len(before)], runs[len(before) :]
    if measure in ("val_accuracy", "val_recall"):
        classes = before[0].truth.astype(np.int64) if measure == "val_recall" else None
        effects = [
            paired_shares(one.correct, other.correct, classes, run_variance=spread)
            for one, other in zip(before, after, strict=True)
        ]
        return effects[0] if len(effects) == 1 else mean_effect(effects, spread)
    values = [np.mean([one.of_samples(measure) for one in side], axis=0) for side in (before, after)]
    return paired_effect(values[0], values[1], run_variance=spread / len(before))


def gain_over_folds(
    measure: str, rounds: Sequence[Sequence[tuple[SampleScores, SampleScores]]], spread: float = 0.0
) -> PairedEffect:
    """Return the gain over the folds of one or more rounds: (before, after) on each fold, trained with a seed of its own.

    Samples are joined within a round, and compared in the mean of the rounds. The folds' gains differ by their samples
    and by their trainings: v = max(0, var(gains) - mean(se^2)) is what training adds to one of them, pooled with
    `spread`, the same by runs of other seeds (0: not known), as two degrees of freedom with one. A round of k folds has
    v / k of it.
    """
    single = [gain(measure, [before], [after]) for pairs in rounds for before, after in pairs]
    if len(single) > 1:
        excess = float(np.var([one.gain for one in single], ddof=1)) - float(np.mean([one.se**2 for one in single]))
        between = max(0.0, excess) if np.isfinite(excess) else 0.0
        freedom = len(single) - 1
        spread = (freedom * between + spread) / (freedom + 1) if spread else between
    joined = [[SampleScores.joined(side) for side in zip(*pairs, strict=True)] for pairs in rounds]
    before, after = zip(*joined, strict=True)
    return gain(measure, before, after, spread / len(rounds[0]))


def variance_of_seeds(measure: str, first: SampleScores, second: SampleScores) -> float:
    """Return the variance that training adds to the difference of two runs that differ by their seed alone."""
    first, second = _common([first, second])
    if measure == "val_recall":
        return max(0.0, (second.value(measure) - first.value(measure)) ** 2 - _sampling(first, second) ** 2)
    return variance_between_runs(first.of_samples(measure), second.of_samples(measure))


def _sampling(first: SampleScores, second: SampleScores) -> float:
    return paired_shares(first.correct, second.correct, first.truth.astype(np.int64)).se


def _common(runs: Sequence[SampleScores]) -> list[SampleScores]:
    """The runs, cut down to the samples that all of them have."""
    shared = runs[0].index
    if all(np.array_equal(one.index, shared) for one in runs):
        return list(runs)
    for one in runs:
        shared = np.intersect1d(shared, one.index)
    return [_rows(one, np.flatnonzero(np.isin(one.index, shared))) for one in runs]


def _rows(scores: SampleScores, rows: Ints) -> SampleScores:
    return SampleScores(**{n: v[rows] for n, v in vars(scores).items() if isinstance(v, np.ndarray)})


def _rounded(values: NDArray[Any]) -> NDArray[Any]:
    """To six significant digits, so that a stored run and one in memory give the same statistics."""
    if values.dtype.kind != "f":
        return values
    size = np.where(values == 0, 1.0, np.abs(values))
    unit = 10.0 ** (DIGITS - 1 - np.floor(np.log10(size)))
    rounded: NDArray[Any] = np.round(values * unit) / unit
    return rounded
