"""Early stopping: each rule is a state machine over evaluations; `EarlyStopping` runs all rules of a spec.

Training and simulation use the same code. A check returns (inputs, stop reason or None, reason as text); the state of a
rule is saved in checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from trainkit.spec.early_stop import (
    PEER_RULE_KINDS,
    Diverged,
    EarlyStopRule,
    Gap,
    NoisePatience,
    NoProgress,
    Patience,
    Stalled,
    Target,
    TimeBudget,
)
from trainkit.spec.metrics import direction

StopReason = Literal["early_stop", "target_reached", "diverged", "time_limit", "no_progress"]
Answer = tuple[dict[str, Any], StopReason | None, str]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The metrics (`val_loss`, `train_accuracy` ...) of one evaluation, after `step` steps in epoch `epoch`."""

    epoch: int
    step: int
    metrics: Mapping[str, float]
    seconds: float = 0.0
    """Training time so far, summed over all attempts."""


def is_better(value: float, best: float | None, mode: str, min_delta: float = 0.0) -> bool:
    """Return whether `value` is better than `best` by more than `min_delta`; a non-finite value never is."""
    if not math.isfinite(value):
        return False
    if best is None:
        return True
    return best - value > min_delta if mode == "min" else value - best > min_delta


@dataclass
class PatienceState:
    """Consecutive evaluations without an improvement by more than `min_delta`, or k standard errors (Kohavi 1995)."""

    rule: Patience | NoisePatience
    best: float | None = None
    best_epoch: int | None = None
    wait: int = 0

    def check(self, evaluation: Evaluation) -> Answer:
        rule = self.rule
        value, before, best_epoch = _metric(evaluation, rule.monitor), self.best, self.best_epoch
        noise = self._noise(evaluation)
        improved = is_better(value, before, _mode(rule), noise["min_delta"])
        if improved:
            self.best, self.best_epoch, self.wait = value, evaluation.epoch, 0
        elif evaluation.epoch > rule.start_epoch:
            self.wait += 1
        inputs = {
            rule.monitor: value,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "wait": self.wait,
            "patience": rule.patience,
            **noise,
        }
        if improved:
            return inputs, None, f"{rule.monitor} improved to {value:.6g}"
        against = "any earlier value (none was finite)" if before is None else f"{before:.6g} of epoch {best_epoch}"
        by = f" by {noise['min_delta']:.3g} ({rule.standard_errors:g} SE)" if rule.kind == "noise_patience" else ""
        missed = f"{rule.monitor} {value:.6g} does not beat {against}{by}"
        counted = f"{self.wait} of {rule.patience} evaluations without improvement"
        # >=, not ==: a counter restored from a checkpoint may already lie beyond a patience that was lowered since.
        return inputs, "early_stop" if self.wait >= rule.patience else None, f"{missed}: {counted}"

    def _noise(self, evaluation: Evaluation) -> dict[str, float]:
        """Return what an improvement must exceed, with the numbers it is computed from."""
        if self.rule.kind == "patience":
            return {"min_delta": self.rule.min_delta}
        error, factor = _metric(evaluation, f"{self.rule.monitor}_se"), self.rule.standard_errors
        # 0 * infinity is NaN: with a factor of 0 the standard error must not matter.
        return {"min_delta": factor * error if factor else 0.0, "standard_error": error, "standard_errors": factor}

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch, "wait": self.wait}

    def load(self, state: Mapping[str, Any]) -> None:
        self.best, self.best_epoch, self.wait = state["best"], state["best_epoch"], state["wait"]


@dataclass
class TargetState:
    """The monitored metric against its target; stateless."""

    rule: Target

    def check(self, evaluation: Evaluation) -> Answer:
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
class DivergedState:
    """Losses that are not finite, or larger than `factor` times the first training loss."""

    rule: Diverged
    first: float | None = None

    def check(self, evaluation: Evaluation) -> Answer:
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
class TimeBudgetState:
    """Training seconds against the budget; stateless."""

    rule: TimeBudget

    def check(self, evaluation: Evaluation) -> Answer:
        spent = evaluation.seconds
        over = spent >= self.rule.seconds
        inputs = {"seconds": spent, "budget": self.rule.seconds}
        return inputs, "time_limit" if over else None, f"{spent:.1f} s of {self.rule.seconds:g} s are spent"

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        del state


@dataclass
class NoProgressState:
    """Ranges of the training and the validation loss over the last evaluations."""

    rule: NoProgress
    recent: list[list[float]] = field(default_factory=list)

    def check(self, evaluation: Evaluation) -> Answer:
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
            return inputs, None, f"{len(self.recent)} of {self.rule.evaluations} evaluations have been made"
        # A NaN makes the comparison false: that is divergence, not a plateau.
        finite = all(math.isfinite(value) for one in self.recent for value in one)
        still = finite and all(spread <= self.rule.min_delta for spread in ranges)
        moved = f"train loss moved by {ranges[0]:.3g}, val loss by {ranges[1]:.3g}"
        return inputs, "no_progress" if still else None, f"{moved} over {self.rule.evaluations} evaluations"

    def state(self) -> dict[str, Any]:
        return {"recent": self.recent}

    def load(self, state: Mapping[str, Any]) -> None:
        self.recent = [list(pair) for pair in state["recent"]][-self.rule.evaluations :]


@dataclass
class StalledState:
    """Consecutive evaluations in which the training loss did not fall below its minimum by more than `min_delta`."""

    rule: Stalled
    least: float | None = None
    wait: int = 0

    def check(self, evaluation: Evaluation) -> Answer:
        value, before = _metric(evaluation, "train_loss"), self.least
        fell = is_better(value, before, "min", self.rule.min_delta)
        self.least, self.wait = (value, 0) if fell else (before, self.wait + 1)
        inputs = {
            "train_loss": value,
            "least_before": before,
            "wait": self.wait,
            "evaluations": self.rule.evaluations,
            "min_delta": self.rule.min_delta,
        }
        if fell:
            return inputs, None, f"train_loss fell to {value:.6g}"
        against = (
            "is not finite" if before is None else f"is not below {before:.6g} by more than {self.rule.min_delta:g}"
        )
        counted = f"{self.wait} of {self.rule.evaluations} evaluations"
        stop = self.wait >= self.rule.evaluations
        return inputs, "no_progress" if stop else None, f"train_loss {value:.6g} {against}: {counted}"

    def state(self) -> dict[str, Any]:
        return {"least": self.least, "wait": self.wait}

    def load(self, state: Mapping[str, Any]) -> None:
        self.least, self.wait = state["least"], state["wait"]


@dataclass
class GapState:
    """Consecutive evaluations in which val_loss - train_loss grew."""

    rule: Gap
    previous: float | None = None
    grown: int = 0

    def check(self, evaluation: Evaluation) -> Answer:
        gap = _metric(evaluation, "val_loss") - _metric(evaluation, "train_loss")
        before = self.previous
        # NaN (after a loss that was not finite) is no growth.
        grows = before is not None and gap - before > self.rule.min_growth * abs(before)
        self.grown = self.grown + 1 if grows else 0
        self.previous = gap
        inputs = {
            "gap": gap,
            "previous_gap": before,
            "grown": self.grown,
            "patience": self.rule.patience,
            "min_gap": self.rule.min_gap,
            "min_growth": self.rule.min_growth,
        }
        stop = self.grown >= self.rule.patience and gap > self.rule.min_gap
        text = f"val_loss - train_loss is {gap:.6g}, grown {self.grown} of {self.rule.patience} times in a row"
        return inputs, "early_stop" if stop else None, text

    def state(self) -> dict[str, Any]:
        return {"previous": self.previous, "grown": self.grown}

    def load(self, state: Mapping[str, Any]) -> None:
        self.previous, self.grown = state["previous"], state["grown"]


def _metric(evaluation: Evaluation, name: str) -> float:
    if name not in evaluation.metrics:
        raise KeyError(f"{name} was not measured; measured: {', '.join(sorted(evaluation.metrics))}")
    return float(evaluation.metrics[name])


def _mode(rule: Patience | NoisePatience | Target) -> str:
    return direction(rule.monitor) if rule.mode == "auto" else rule.mode


RuleState = PatienceState | TargetState | DivergedState | TimeBudgetState | NoProgressState | StalledState | GapState
STATES: dict[str, type[RuleState]] = {
    "patience": PatienceState,
    "noise_patience": PatienceState,
    "target": TargetState,
    "diverged": DivergedState,
    "time_budget": TimeBudgetState,
    "no_progress": NoProgressState,
    "stalled": StalledState,
    "gap": GapState,
}


@dataclass(frozen=True, slots=True)
class EarlyStopDecision:
    """The decision of one rule at one evaluation, with the numbers it was made on."""

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


class EarlyStopping:
    """All rules of a spec, checked after every evaluation; the first rule in the spec's order that stops decides.

    Rules that compare a job with its peers are left out (see peer_rules.py): training sees no other job.
    """

    def __init__(self, rules: Sequence[EarlyStopRule]) -> None:
        self.rules = tuple(rule for rule in rules if rule.kind not in PEER_RULE_KINDS)
        self._states: list[RuleState] = [_state_of(rule) for rule in self.rules]
        self._rule_documents = [rule.model_dump(mode="json") for rule in self.rules]

    def observe(self, evaluation: Evaluation) -> list[EarlyStopDecision]:
        """Return one decision for each rule. Raises KeyError when a monitored metric was not measured."""
        return [
            _decide(document, state, evaluation)
            for document, state in zip(self._rule_documents, self._states, strict=True)
        ]

    def observe_batch_loss(self, epoch: int, step: int, value: float) -> EarlyStopDecision | None:
        """Return the stop of a `diverged` rule when a batch loss between evaluations is not finite."""
        if math.isfinite(value):
            return None
        for rule, document in zip(self.rules, self._rule_documents, strict=True):
            if rule.kind == "diverged":
                inputs = {"batch_loss": value}
                return EarlyStopDecision(
                    document, epoch, step, inputs, "stop", f"the batch loss is {value}", "diverged"
                )
        return None

    def state(self) -> list[dict[str, Any]]:
        """Return the state of all rules as plain data. Settings such as the patience come from the spec."""
        return [{"rule": _identity(state.rule), **state.state()} for state in self._states]

    def load(self, saved: Iterable[Mapping[str, Any]]) -> None:
        """Restore what `state` returned. Rules that are new or monitor another metric start without a state."""
        remaining = list(saved)
        for state in self._states:
            match = next((one for one in remaining if one["rule"] == _identity(state.rule)), None)
            if match is not None:
                remaining.remove(match)
                state.load(match)


def first_stop(decisions: Iterable[EarlyStopDecision]) -> EarlyStopDecision | None:
    """Return the first decision that stops training, if any."""
    return next((decision for decision in decisions if decision.action == "stop"), None)


def _state_of(rule: EarlyStopRule) -> RuleState:
    make: Callable[[Any], RuleState] = STATES[rule.kind]
    return make(rule)


def _decide(rule: dict[str, Any], state: RuleState, evaluation: Evaluation) -> EarlyStopDecision:
    inputs, stop_reason, reason = state.check(evaluation)
    action: Literal["continue", "stop"] = "stop" if stop_reason else "continue"
    return EarlyStopDecision(rule, evaluation.epoch, evaluation.step, inputs, action, reason, stop_reason)


def _identity(rule: EarlyStopRule) -> list[str]:
    return [rule.kind, getattr(rule, "monitor", "")]
