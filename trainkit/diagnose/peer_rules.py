"""Peer rules: early stopping that compares a job with the other jobs of its experiment at the same epoch.

The service applies them when it has stored an evaluation; a simulation applies the same code to the stored numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trainkit.diagnose.early_stopping import EarlyStopDecision, Evaluation, is_better
from trainkit.spec.early_stop import Median, PeerRule, Percentile, SuccessiveHalving
from trainkit.spec.metrics import DIRECTIONS, direction

MAX_LISTED_PEERS = 100
"""Maximum number of peers that a decision lists in its inputs; all of them are counted."""


@dataclass(frozen=True, slots=True)
class RunningStats:
    """Statistics of a series up to an evaluation: last value, count, sum, and best finite value."""

    value: float
    count: int
    total: float
    best: float | None

    @property
    def mean(self) -> float:
        """The mean of all values; not finite once a value was not."""
        return self.total / self.count


@dataclass(frozen=True, slots=True)
class PeerState:
    """A peer that has reached the epoch: its last evaluation up to that epoch, at `seq` of its log."""

    job: str
    seq: int
    epoch: int
    running_stats: Mapping[str, RunningStats]


PeerLookup = Callable[[int], Sequence[PeerState]]
"""Epoch -> the peers that have reached it."""


def updated_stats(before: Mapping[str, RunningStats], metrics: Mapping[str, float]) -> dict[str, RunningStats]:
    """Return the statistics of all series that a rule may monitor, with the values of one evaluation added."""
    after = {}
    for name, value in metrics.items():
        if name.partition("_")[2] not in DIRECTIONS:
            continue
        known = before.get(name, RunningStats(math.nan, 0, 0.0, None))
        best = value if is_better(value, known.best, direction(name)) else known.best
        after[name] = RunningStats(value, known.count + 1, known.total + value, best)
    return after


def median(values: Iterable[float]) -> float | None:
    """Return the median of the finite values; None where there is none."""
    order_by_cause = sorted(value for value in values if math.isfinite(value))
    if not order_by_cause:
        return None
    half = len(order_by_cause) // 2
    return order_by_cause[half] if len(order_by_cause) % 2 else (order_by_cause[half - 1] + order_by_cause[half]) / 2


def percentile(values: Iterable[float], share: float) -> float | None:
    """Return the `share`-th percentile of the finite values, linearly interpolated; None where there is none."""
    finite = [value for value in values if math.isfinite(value)]
    return float(np.percentile(np.asarray(finite, np.float64), share)) if finite else None


class PeerRules:
    """The peer rules of one job, applied to its evaluations in order; `running_stats` and `epoch` are their state."""

    def __init__(
        self, rules: Sequence[PeerRule], running_stats: Mapping[str, RunningStats] | None = None, epoch: int = 0
    ) -> None:
        self.rules = tuple(rules)
        self.running_stats = dict(running_stats or {})
        self.epoch = epoch
        """Epoch of the previous evaluation."""
        self._rule_documents = [rule.model_dump(mode="json") for rule in rules]

    def observe(self, evaluation: Evaluation, lookup: PeerLookup, basis: int) -> list[EarlyStopDecision]:
        """Return a decision of each rule whose metric was measured.

        `lookup` returns the peers as they were at version `basis` of the experiment.
        """
        self.running_stats = updated_stats(self.running_stats, evaluation.metrics)
        applicable = [
            (rule, document)
            for rule, document in zip(self.rules, self._rule_documents, strict=True)
            if rule.monitor in self.running_stats
        ]
        late = any(self._is_due(rule, evaluation.epoch) for rule, _ in applicable)
        peers = lookup(evaluation.epoch) if late else ()
        decisions = [
            self._decide_halving(rule, document, evaluation, peers, basis)
            if isinstance(rule, SuccessiveHalving)
            else self._decide(rule, document, evaluation, peers, basis)
            for rule, document in applicable
            if not isinstance(rule, SuccessiveHalving) or self._is_due(rule, evaluation.epoch)
        ]
        self.epoch = evaluation.epoch
        return decisions

    def _is_due(self, rule: PeerRule, epoch: int) -> bool:
        if isinstance(rule, SuccessiveHalving):
            return rule.rung(self.epoch, epoch) is not None
        return epoch > rule.start_epoch

    def _decide_halving(
        self,
        rule: SuccessiveHalving,
        document: dict[str, Any],
        evaluation: Evaluation,
        peers: Sequence[PeerState],
        basis: int,
    ) -> EarlyStopDecision:
        """Decide whether the job is among the best 1/reduction_factor of those that have reached this rung."""
        name, value = rule.monitor, self.running_stats[rule.monitor].value
        peers = sorted((one for one in peers if name in one.running_stats), key=lambda one: one.job)
        compared = [(one, one.running_stats[name].value) for one in peers]
        mode = direction(name)
        finite = sorted((v for v in (value, *(v for _, v in compared)) if math.isfinite(v)), reverse=mode == "max")
        places = max(1, (1 + len(compared)) // rule.reduction_factor)
        threshold = finite[min(places, len(finite)) - 1] if finite else None
        stop = not math.isfinite(value) or (threshold is not None and _is_worse(value, threshold, mode))
        inputs = {
            name: value,
            "rung": rule.rung(self.epoch, evaluation.epoch),
            "threshold": threshold,
            "others": len(compared),
            "places": places,
            "compared": [{"job": one.job, "seq": one.seq, "value": v} for one, v in compared[:MAX_LISTED_PEERS]],
            "basis": basis,
        }
        what = f"the best {places} of {1 + len(compared)} jobs at epoch {evaluation.epoch}, {rule.monitor} {value:.6g}"
        reason = f"not among {what}" if stop else f"among {what}"
        action: Literal["continue", "stop"] = "stop" if stop else "continue"
        stop_reason: Literal["early_stop"] | None = "early_stop" if stop else None
        return EarlyStopDecision(document, evaluation.epoch, evaluation.step, inputs, action, reason, stop_reason)

    def _decide(
        self,
        rule: Median | Percentile,
        document: dict[str, Any],
        evaluation: Evaluation,
        peers: Sequence[PeerState],
        basis: int,
    ) -> EarlyStopDecision:
        stats, name = self.running_stats[rule.monitor], rule.monitor
        if evaluation.epoch <= rule.start_epoch:
            inputs: dict[str, Any] = {name: stats.value, "best": stats.best, "start_epoch": rule.start_epoch}
            reason = f"the rule compares nothing up to epoch {rule.start_epoch}"
            return EarlyStopDecision(document, evaluation.epoch, evaluation.step, inputs, "continue", reason)
        compared = _compared(rule, evaluation.epoch, peers)
        values = [value for _, value in compared]
        threshold = None if len(compared) < rule.min_jobs else _threshold(rule, values)
        stop = threshold is not None and _is_worse(stats.best, threshold, direction(name))
        inputs = {
            name: stats.value,
            "best": stats.best,
            "threshold": threshold,
            "others": len(compared),
            "min_jobs": rule.min_jobs,
            "compared": [
                {"job": one.job, "seq": one.seq, "value": value} for one, value in compared[:MAX_LISTED_PEERS]
            ],
            "basis": basis,
        }
        action: Literal["continue", "stop"] = "stop" if stop else "continue"
        reason = _reason(rule, stats.best, threshold, len(compared), stop)
        stop_reason: Literal["early_stop"] | None = "early_stop" if stop else None
        return EarlyStopDecision(document, evaluation.epoch, evaluation.step, inputs, action, reason, stop_reason)


def _compared(rule: Median | Percentile, epoch: int, peers: Sequence[PeerState]) -> list[tuple[PeerState, float]]:
    """Return the peers that are compared, ordered by id, each with the compared value."""
    peers = sorted((one for one in peers if rule.monitor in one.running_stats), key=lambda one: one.job)
    if isinstance(rule, Median):
        return [(one, one.running_stats[rule.monitor].mean) for one in peers]
    return [(one, one.running_stats[rule.monitor].value) for one in peers if one.epoch == epoch]


def _threshold(rule: Median | Percentile, values: Sequence[float]) -> float | None:
    if isinstance(rule, Median):
        return median(values)
    return percentile(values, rule.percentile if direction(rule.monitor) == "min" else 100 - rule.percentile)


def _is_worse(best: float | None, threshold: float, mode: str) -> bool:
    """Return whether `best` is strictly worse than the threshold; None (nothing finite) is worse than any number."""
    if best is None:
        return True
    return best > threshold if mode == "min" else best < threshold


def _reason(rule: Median | Percentile, best: float | None, threshold: float | None, peers: int, stop: bool) -> str:
    if peers < rule.min_jobs:
        return f"{peers} of {rule.min_jobs} other jobs have reached this epoch"
    if threshold is None:
        return f"none of the {peers} other jobs has a finite {rule.monitor}"
    subject = (
        f"the best {rule.monitor} so far, {best:.6g},"
        if best is not None
        else f"{rule.monitor}, which was never finite,"
    )
    what = f"the median of {peers} other jobs' running averages"
    if isinstance(rule, Percentile):
        what = f"the threshold of the best {rule.percentile:g} % of {peers} other jobs at this epoch"
    return f"{subject} is {'worse' if stop else 'not worse'} than {threshold:.6g}, {what}"
