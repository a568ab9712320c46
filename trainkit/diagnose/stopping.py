"""Early stopping: every rule, every decision with the numbers it was made on (techniques, section 9). Pure Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trainkit.diagnose.rules import STATES, Evaluation, RuleState, StopReason, is_better
from trainkit.spec.early_stop import ACROSS, EarlyStopRule

__all__ = ["Decision", "EarlyStopping", "Evaluation", "StopReason", "first_stop", "is_better"]


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


class EarlyStopping:
    """All rules of a spec, asked after every evaluation; the first in the spec's order that says stop decides.

    Those across jobs are not among them (across.py): one job's training sees no other.
    """

    def __init__(self, rules: Sequence[EarlyStopRule]) -> None:
        self.rules = tuple(rule for rule in rules if rule.kind not in ACROSS)
        self._states: list[RuleState] = [_made(rule) for rule in self.rules]
        self._told = [rule.model_dump(mode="json") for rule in self.rules]

    def observe(self, evaluation: Evaluation) -> list[Decision]:
        """One decision a rule. Raises KeyError, naming the known metrics, when a monitored one was not measured."""
        return [_decide(told, state, evaluation) for told, state in zip(self._told, self._states, strict=True)]

    def observe_batch_loss(self, epoch: int, step: int, value: float) -> Decision | None:
        """Between evaluations only this is looked at: with a `diverged` rule a non-finite batch loss stops at once."""
        if math.isfinite(value):
            return None
        for rule, told in zip(self.rules, self._told, strict=True):
            if rule.kind == "diverged":
                inputs = {"batch_loss": value}
                return Decision(told, epoch, step, inputs, "stop", f"the batch loss is {value}", "diverged")
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


def _made(rule: EarlyStopRule) -> RuleState:
    make: Callable[[Any], RuleState] = STATES[rule.kind]
    return make(rule)


def _decide(rule: dict[str, Any], state: RuleState, evaluation: Evaluation) -> Decision:
    inputs, stop_reason, reason = state.check(evaluation)
    action: Literal["continue", "stop"] = "stop" if stop_reason else "continue"
    return Decision(rule, evaluation.epoch, evaluation.step, inputs, action, reason, stop_reason)


def _identity(rule: EarlyStopRule) -> list[str]:
    return [rule.kind, getattr(rule, "monitor", "")]
