"""Early-stop rules across the jobs of one experiment: a job's best against the others at the same epoch. No torch, no SQL.

The service asks them when it has stored an evaluation, and a replay asks them again: the same code, on the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trainkit.diagnose.stopping import Decision, Evaluation, is_better
from trainkit.spec.early_stop import AcrossRule, Median, Percentile, SuccessiveHalving
from trainkit.spec.metrics import DIRECTIONS, direction

LISTED = 100
"""So many of the others are named in a decision's inputs; all of them are counted."""


@dataclass(frozen=True, slots=True)
class Tally:
    """A series up to an evaluation: its value there, how many there were, their sum, and the best finite one."""

    value: float
    count: int
    total: float
    best: float | None

    @property
    def mean(self) -> float:
        """The running average; not finite once a value was not."""
        return self.total / self.count


@dataclass(frozen=True, slots=True)
class Standing:
    """Another job that has reached the epoch: its last evaluation up to there, at `seq` of its log."""

    job: str
    seq: int
    epoch: int
    tallies: Mapping[str, Tally]


Look = Callable[[int], Sequence[Standing]]
"""The others at an epoch."""


def tallied(before: Mapping[str, Tally], metrics: Mapping[str, float]) -> dict[str, Tally]:
    """The series that a rule may watch (`val_loss`, `train_accuracy` ...), with one evaluation's values added."""
    after = {}
    for name, value in metrics.items():
        if name.partition("_")[2] not in DIRECTIONS:
            continue
        known = before.get(name, Tally(math.nan, 0, 0.0, None))
        best = value if is_better(value, known.best, direction(name)) else known.best
        after[name] = Tally(value, known.count + 1, known.total + value, best)
    return after


def median(values: Iterable[float]) -> float | None:
    """The middle value, or the mean of the middle two; of the finite ones, None where there is none."""
    ordered = sorted(value for value in values if math.isfinite(value))
    if not ordered:
        return None
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def percentile(values: Iterable[float], share: float) -> float | None:
    """`share` percent of the finite values lie below it, with linear interpolation; None where there is none."""
    finite = [value for value in values if math.isfinite(value)]
    return float(np.percentile(np.asarray(finite, np.float64), share)) if finite else None


class AcrossRules:
    """Such rules asked about one job's evaluations in their order; `tallies` is all that they remember."""

    def __init__(self, rules: Sequence[AcrossRule], tallies: Mapping[str, Tally] | None = None, epoch: int = 0) -> None:
        self.rules = tuple(rules)
        self.tallies = dict(tallies or {})
        self.epoch = epoch
        """Of the evaluation before."""
        self._told = [rule.model_dump(mode="json") for rule in rules]

    def observe(self, evaluation: Evaluation, look: Look, basis: int) -> list[Decision]:
        """A decision of each rule whose metric was measured. `look` sees the others as they were at the time `basis`."""
        self.tallies = tallied(self.tallies, evaluation.metrics)
        asked = [
            (rule, told) for rule, told in zip(self.rules, self._told, strict=True) if rule.monitor in self.tallies
        ]
        late = any(self._is_due(rule, evaluation.epoch) for rule, _ in asked)
        others = look(evaluation.epoch) if late else ()
        decisions = [
            self._halve(rule, told, evaluation, others, basis)
            if isinstance(rule, SuccessiveHalving)
            else self._decide(rule, told, evaluation, others, basis)
            for rule, told in asked
            if not isinstance(rule, SuccessiveHalving) or self._is_due(rule, evaluation.epoch)
        ]
        self.epoch = evaluation.epoch
        return decisions

    def _is_due(self, rule: AcrossRule, epoch: int) -> bool:
        if isinstance(rule, SuccessiveHalving):
            return rule.rung(self.epoch, epoch) is not None
        return epoch > rule.start_epoch

    def _halve(
        self,
        rule: SuccessiveHalving,
        told: dict[str, Any],
        evaluation: Evaluation,
        others: Sequence[Standing],
        basis: int,
    ) -> Decision:
        """Whether the job is among the best 1/reduction_factor of those that have come to this rung by now."""
        name, value = rule.monitor, self.tallies[rule.monitor].value
        there = sorted((one for one in others if name in one.tallies), key=lambda one: one.job)
        compared = [(one, one.tallies[name].value) for one in there]
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
            "compared": [{"job": one.job, "seq": one.seq, "value": v} for one, v in compared[:LISTED]],
            "basis": basis,
        }
        what = f"the best {places} of {1 + len(compared)} jobs at epoch {evaluation.epoch}, {rule.monitor} {value:.6g}"
        reason = f"not among {what}" if stop else f"among {what}"
        action: Literal["continue", "stop"] = "stop" if stop else "continue"
        stop_reason: Literal["early_stop"] | None = "early_stop" if stop else None
        return Decision(told, evaluation.epoch, evaluation.step, inputs, action, reason, stop_reason)

    def _decide(
        self,
        rule: Median | Percentile,
        told: dict[str, Any],
        evaluation: Evaluation,
        others: Sequence[Standing],
        basis: int,
    ) -> Decision:
        own, name = self.tallies[rule.monitor], rule.monitor
        if evaluation.epoch <= rule.start_epoch:
            inputs: dict[str, Any] = {name: own.value, "best": own.best, "start_epoch": rule.start_epoch}
            reason = f"nothing is compared up to epoch {rule.start_epoch}"
            return Decision(told, evaluation.epoch, evaluation.step, inputs, "continue", reason)
        compared = _compared(rule, evaluation.epoch, others)
        values = [value for _, value in compared]
        threshold = None if len(compared) < rule.min_jobs else _threshold(rule, values)
        stop = threshold is not None and _is_worse(own.best, threshold, direction(name))
        inputs = {
            name: own.value,
            "best": own.best,
            "threshold": threshold,
            "others": len(compared),
            "min_jobs": rule.min_jobs,
            "compared": [{"job": one.job, "seq": one.seq, "value": value} for one, value in compared[:LISTED]],
            "basis": basis,
        }
        action: Literal["continue", "stop"] = "stop" if stop else "continue"
        reason = _reason(rule, own.best, threshold, len(compared), stop)
        stop_reason: Literal["early_stop"] | None = "early_stop" if stop else None
        return Decision(told, evaluation.epoch, evaluation.step, inputs, action, reason, stop_reason)


def _compared(rule: Median | Percentile, epoch: int, others: Sequence[Standing]) -> list[tuple[Standing, float]]:
    """The others that count, by id, each with the number that it is compared by."""
    there = sorted((one for one in others if rule.monitor in one.tallies), key=lambda one: one.job)
    if isinstance(rule, Median):
        return [(one, one.tallies[rule.monitor].mean) for one in there]
    return [(one, one.tallies[rule.monitor].value) for one in there if one.epoch == epoch]


def _threshold(rule: Median | Percentile, values: Sequence[float]) -> float | None:
    if isinstance(rule, Median):
        return median(values)
    return percentile(values, rule.percentile if direction(rule.monitor) == "min" else 100 - rule.percentile)


def _is_worse(best: float | None, threshold: float, mode: str) -> bool:
    """Strictly; nothing finite is worse than any number."""
    if best is None:
        return True
    return best > threshold if mode == "min" else best < threshold


def _reason(rule: Median | Percentile, best: float | None, threshold: float | None, others: int, stop: bool) -> str:
    if others < rule.min_jobs:
        return f"{others} of {rule.min_jobs} other jobs to compare with have come to this epoch"
    if threshold is None:
        return f"none of the {others} other jobs has a finite {rule.monitor} to compare with"
    mine = f"the best {rule.monitor} so far, {best:.6g}," if best is not None else f"{rule.monitor}, never finite,"
    what = f"the median of {others} other jobs' running averages"
    if isinstance(rule, Percentile):
        what = f"what the best {rule.percentile:g} % of {others} other jobs have at this epoch"
    return f"{mine} is {'worse' if stop else 'not worse'} than {threshold:.6g}, {what}"
