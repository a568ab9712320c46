"""Replay of early-stop rules on a logged history: their decisions, and what a stop saves and costs.

In the log each evaluation ends with a row `train_seconds` after the rows of its step, and batch losses that are not
finite are logged too. A replay in the order of the log therefore gives the rules the same input as training did.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trainkit.diagnose.early_stopping import EarlyStopDecision, EarlyStopping, Evaluation, first_stop, is_better
from trainkit.spec.early_stop import EarlyStopRule
from trainkit.spec.metrics import direction

EVALUATION_MARKER = "train_seconds"
"""Series whose rows end an evaluation; the value is the training time in seconds."""
BATCH_LOSS = "train_batch_loss"
UNOBSERVED = frozenset({"lr", "grad_norm", "weight_norm"})
"""Training series that are logged at every log step; rules cannot monitor them."""
LogRow = tuple[str, int, int, float]
"""(`val_loss`, step, epoch, value)."""


@dataclass(frozen=True, slots=True)
class BatchLoss:
    """A batch loss that is not finite, logged between evaluations."""

    epoch: int
    step: int
    value: float


Observation = Evaluation | BatchLoss


def is_observed(split: str, name: str) -> bool:
    """Return whether rules may use rows of this series."""
    return split == "val" or (split == "train" and name not in UNOBSERVED)


def observations(rows: Iterable[LogRow]) -> Iterator[Observation]:
    """Yield the evaluations and non-finite batch losses of a log without superseded rows, in order."""
    metrics: dict[str, float] = {}
    at: int | None = None
    for name, step, epoch, value in rows:
        if name == BATCH_LOSS:
            if not math.isfinite(value):
                yield BatchLoss(epoch, step, value)
            continue
        if step != at:
            metrics, at = {}, step
        if name == EVALUATION_MARKER:
            yield Evaluation(epoch, step, dict(metrics), value)
        else:
            metrics[name] = value


class Replay:
    """Replays observations one by one: decisions up to the stop, and what the rest of the history was worth.

    A stop by one of the job's rules ends the replay. A stop by a peer rule is recorded in `stop`, but training receives
    it a little later, so decisions continue until a rule of the job stops.
    """

    def __init__(self, rules: Sequence[EarlyStopRule], metric: str) -> None:
        self.stop: EarlyStopDecision | None = None
        self.metric = metric
        self.best_if_stopped: float | None = None
        self.best_seen: float | None = None
        self._mode = direction(metric)
        self._rules = EarlyStopping(rules)
        self._ended = False
        self._at_stop = self._last = (0, 0, 0.0)

    def feed(
        self, observation: Observation, peer_decisions: Sequence[EarlyStopDecision] = ()
    ) -> list[EarlyStopDecision]:
        """Return the decisions of all rules in order, then `peer_decisions`; none after the end.

        Raises KeyError when a monitored metric was not measured.
        """
        if isinstance(observation, Evaluation):
            # A batch loss has no time of its own: take that of the evaluation before it.
            self._last = (observation.epoch, observation.step, observation.seconds)
            value = observation.metrics.get(self.metric, math.nan)
            if is_better(value, self.best_seen, self._mode):
                self.best_seen = value
        else:
            self._last = (observation.epoch, observation.step, self._last[2])
        if self._ended:
            return []
        if self.stop is None:
            self._at_stop, self.best_if_stopped = self._last, self.best_seen
        if isinstance(observation, Evaluation):
            decisions = self._rules.observe(observation)
        else:
            decision = self._rules.observe_batch_loss(observation.epoch, observation.step, observation.value)
            decisions = [] if decision is None else [decision]
        self._ended = first_stop(decisions) is not None
        decisions += peer_decisions
        self.stop = self.stop or first_stop(decisions)
        return decisions

    def saved(self) -> dict[str, Any]:
        """Return the training after the stop, `{epochs, steps, seconds}`; 0 without a stop."""
        differences = (last - stop for last, stop in zip(self._last, self._at_stop, strict=True))
        return dict(zip(("epochs", "steps", "seconds"), differences, strict=True))

    def cost(self) -> dict[str, Any]:
        """Return the best value up to the stop and of the whole history; `regret` >= 0 is the difference, None if unknown."""
        values = (self.best_if_stopped, self.best_seen)
        regret = None if values[0] is None or values[1] is None else abs(values[1] - values[0])
        return {
            "metric": self.metric,
            "best_if_stopped": values[0],
            "best_seen": values[1],
            "regret": regret,
        }
