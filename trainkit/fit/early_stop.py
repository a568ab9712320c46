"""Early stopping: every rule, every decision with the numbers it was made on (techniques, section 9). Pure Python."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from trainkit.spec.early_stop import Diverged, EarlyStopRule, Gap, NoProgress, Patience, Target, TimeBudget
from trainkit.spec.metrics import direction

StopReason = Literal["early_stop", "target_reached", "diverged", "time_limit", "no_progress"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the rules see: metrics by name (`val_loss`, `train_accuracy` ...) after `step` steps and `epoch` epochs."""

    epoch: int
    step: int
    metrics: Mapping[str, float]
    seconds: float = 0.0
    """Training seconds so far, summed over all attempts."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One rule's answer to one evaluation."""

    rule: dict[str, Any]
    epoch: int
    step: int
    inputs: dict[str, Any]
    action: Literal["continue", "stop"]
    reason: str
    stop_reason: StopReason | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def is_better(value: float, best: float | None, mode: str, min_delta: float = 0.0) -> bool:
    """Whether `value` beats `best` by strictly more than `min_delta`; a non-finite value never does."""
    if not math.isfinite(value):
        return False
    if best is None:
        return True
    return best - value > min_delta if mode == "min" else value - best > min_delta


@dataclass
class _PatienceState:
    rule: Patience
    best: float | None = None
    best_epoch: int | None = None
    wait: int = 0

    def check(self, evaluation: Evaluation) -> tuple[dict[str, Any], StopReason | None, str]:
        rule = self.rule
        value, before, best_epoch = _metric(evaluation, rule.monitor), self.best, self.best_epoch
        if is_better(value, before, _mode(rule), rule.min_delta):
            self.best, self.best_epoch, self.wait = value, evaluation.epoch, 0
        elif evaluation.epoch > rule.start_epoch:
            self.wait += 1
        inputs = {
            rule.monitor: value,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "wait": self.wait,
            "patience": rule.patience,
            "min_delta": rule.min_delta,
        }
        if self.best_epoch == evaluation.epoch and self.best is not before:
            return inputs, None, f"{rule.monitor} improved to {value:.6g}"
        against = "nothing finite yet" if before is None else f"{before:.6g} of epoch {best_epoch}"
        missed = f"{rule.monitor} {value:.6g} does not beat {against}"
        counted = f"{self.wait} of {rule.patience} evaluations without improvement"
        # >=, not ==: a counter restored from a checkpoint may already lie beyond a patience that was lowered since.
        return inputs, "early_stop" if self.wait >= rule.patience else None, f"{missed}: {counted}"

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch, "wait": self.wait}

    def load(self, state: Mapping[str, Any]) -> None:
        self.best, self.best_epoch, self.wait = state["best"], state["best_epoch"], state["wait"]


@dataclass
class _TargetState:
    rule: Target

    def check(self, evaluation: Evaluation) -> tuple[dict[str, Any], StopReason | None, str]:
        rule, mode = self.rule, _mode(self.rule)
        value = _metric(evaluation, rule.monitor)
        reached = math.isfinite(value) and (value <= rule.value if mode == "min" else value >= rule.value)
        inputs = {rule.monitor: value, "target": rule.value, "mode": mode}
        word = "reached" if reached else "has not reached"
        return inputs, "target_reached" if reached else None, f"{rule.monitor} {value:.6g} {word} {rule.value:.6g}"

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        del state


@dataclass
class _DivergedState:
    rule: Diverged
    first: float | None = None

    def check(self, evaluation: Evaluation) -> tuple[dict[str, Any], StopReason | None, str]:
        losses = {name: evaluation.metrics[name] for name in ("train_loss", "val_loss") if name in evaluation.metrics}
        if self.first is None:
            self.first = losses.get("train_loss")
        inputs: dict[str, Any] = {**losses, "first_train_loss": self.first, "factor": self.rule.factor}
        for name, value in losses.items():
            if not math.isfinite(value):
                return inputs, "diverged", f"{name} is {value}"
            limit = math.inf if self.rule.factor is None or self.first is None else self.rule.factor * self.first
            if value > limit:
                return inputs, "diverged", f"{name} {value:.6g} exceeds {self.rule.factor:g} x {self.first:.6g}"
        return inputs, None, "all losses are finite" + ("" if self.rule.factor is None else " and within the factor")

    def state(self) -> dict[str, Any]:
        return {"first": self.first}

    def load(self, state: Mapping[str, Any]) -> None:
        self.first = state["first"]


@dataclass
class _TimeBudgetState:
    rule: TimeBudget

    def check(self, evaluation: Evaluation) -> tuple[dict[str, Any], StopReason | None, str]:
        spent = evaluation.seconds
        over = spent >= self.rule.seconds
        inputs = {"seconds": spent, "budget": self.rule.seconds}
        return inputs, "time_limit" if over else None, f"{spent:.1f} s of {self.rule.seconds:g} s are spent"

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        del state


@dataclass
class _NoProgressState:
    rule: NoProgress
    recent: list[list[float]] = field(default_factory=list)

    def check(self, evaluation: Evaluation) -> tuple[dict[str, Any], StopReason | None, str]:
        pair = [_metric(evaluation, "train_loss"), _metric(evaluation, "val_loss")]
        self.recent = [*self.recent, pair][-self.rule.evaluations :]
        ranges = [max(column) - min(column) for column in zip(*self.recent, strict=True)]
        inputs = {
            "train_loss_range": ranges[0],
            "val_loss_range": ranges[1],
            "evaluations": len(self.recent),
            "min_delta": self.rule.min_delta,
        }
        if len(self.recent) < self.rule.evaluations:
            return inputs, None, f"{len(self.recent)} of {self.rule.evaluations} evaluations to look back on"
        # A NaN among the losses makes the comparison false: that is divergence, not a plateau.
        finite = all(math.isfinite(value) for one in self.recent for value in one)
        still = finite and all(spread <= self.rule.min_delta for spread in ranges)
        moved = f"train loss moved by {ranges[0]:.3g}, val loss by {ranges[1]:.3g}"
        return inputs, "no_progress" if still else None, f"{moved} over {self.rule.evaluations} evaluations"

    def state(self) -> dict[str, Any]:
        return {"recent": self.recent}

    def load(self, state: Mapping[str, Any]) -> None:
        self.recent = [list(pair) for pair in state["recent"]][-self.rule.evaluations :]


@dataclass
class _GapState:
    rule: Gap
    previous: float | None = None
    grown: int = 0

    def check(self, evaluation: Evaluation) -> tuple[dict[str, Any], StopReason | None, str]:
        gap = _metric(evaluation, "val_loss") - _metric(evaluation, "train_loss")
        before = self.previous
        self.grown = self.grown + 1 if before is not None and gap > before else 0
        self.previous = gap
        inputs = {"gap": gap, "previous_gap": before, "grown": self.grown, "patience": self.rule.patience}
        stop = self.grown >= self.rule.patience and gap > self.rule.min_gap
        text = f"val_loss - train_loss is {gap:.6g}, grown {self.grown} of {self.rule.patience} times in a row"
        return inputs, "early_stop" if stop else None, text

    def state(self) -> dict[str, Any]:
        return {"previous": self.previous, "grown": self.grown}

    def load(self, state: Mapping[str, Any]) -> None:
        self.previous, self.grown = state["previous"], state["grown"]


_RuleState = _PatienceState | _TargetState | _DivergedState | _TimeBudgetState | _NoProgressState | _GapState
_STATES: dict[str, Any] = {
    "patience": _PatienceState,
    "target": _TargetState,
    "diverged": _DivergedState,
    "time_budget": _TimeBudgetState,
    "no_progress": _NoProgressState,
    "gap": _GapState,
}


class EarlyStopping:
    """All rules of a spec, asked after every evaluation; the first in the spec's order that says stop decides."""

    def __init__(self, rules: Sequence[EarlyStopRule]) -> None:
        self.rules = tuple(rules)
        self._states: list[_RuleState] = [_STATES[rule.kind](rule) for rule in rules]

    def observe(self, evaluation: Evaluation) -> list[Decision]:
        """One decision a rule. Raises KeyError, naming the known metrics, when a monitored one was not measured."""
        return [_decide(state, evaluation) for state in self._states]

    def observe_batch_loss(self, epoch: int, step: int, value: float) -> Decision | None:
        """Between evaluations only this is looked at: with a `diverged` rule a non-finite batch loss stops at once."""
        if math.isfinite(value):
            return None
        for rule in self.rules:
            if rule.kind == "diverged":
                inputs = {"batch_loss": value}
                return Decision(_dump(rule), epoch, step, inputs, "stop", f"the batch loss is {value}", "diverged")
        return None

    def state(self) -> list[dict[str, Any]]:
        """JSON-able: bests and counters, never the patience, which comes from the spec."""
        return [{"rule": _identity(state.rule), **state.state()} for state in self._states]

    def load(self, saved: Iterable[Mapping[str, Any]]) -> None:
        """Restore what `state` gave. Rules that are new since, or watch another metric, start afresh."""
        remaining = list(saved)
        for state in self._states:
            match = next((one for one in remaining if one["rule"] == _identity(state.rule)), None)
            if match is not None:
                remaining.remove(match)
                state.load(match)


def first_stop(decisions: Iterable[Decision]) -> Decision | None:
    """The decision that ends training, if any."""
    return next((decision for decision in decisions if decision.action == "stop"), None)


def _decide(state: _RuleState, evaluation: Evaluation) -> Decision:
    inputs, stop_reason, reason = state.check(evaluation)
    action: Literal["continue", "stop"] = "stop" if stop_reason else "continue"
    return Decision(_dump(state.rule), evaluation.epoch, evaluation.step, inputs, action, reason, stop_reason)


def _metric(evaluation: Evaluation, name: str) -> float:
    if name not in evaluation.metrics:
        raise KeyError(f"{name} was not measured; known: {', '.join(sorted(evaluation.metrics))}")
    return float(evaluation.metrics[name])


def _mode(rule: Patience | Target) -> str:
    return direction(rule.monitor) if rule.mode == "auto" else rule.mode


def _identity(rule: EarlyStopRule) -> list[str]:
    return [rule.kind, getattr(rule, "monitor", "")]


def _dump(rule: EarlyStopRule) -> dict[str, Any]:
    return rule.model_dump(mode="json")
