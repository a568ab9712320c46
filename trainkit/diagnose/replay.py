"""Early-stop rules asked again about a logged history: what they would have done, saved and cost. Pure Python.

The log marks every evaluation that the rules were asked about by a row `train seconds` behind the rows of its step, and
holds every batch loss that was not finite; so a replay in the log's order sees what the rules saw.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trainkit.diagnose.stopping import Decision, EarlyStopping, Evaluation, first_stop, is_better
from trainkit.spec.early_stop import EarlyStopRule
from trainkit.spec.metrics import direction

ASKED = "train_seconds"
"""The row that says that the rules were asked, and after how many seconds of training."""
BATCH_LOSS = "train_batch_loss"
UNHEARD = frozenset({"lr", "grad_norm", "weight_norm"})
"""Names of the training part that come with every log step; no rule asks about them."""
LogRow = tuple[str, int, int, float]
"""(`val_loss`, step, epoch, value)."""


@dataclass(frozen=True, slots=True)
class BatchLoss:
    """A batch loss that is not finite, between evaluations."""

    epoch: int
    step: int
    value: float


Moment = Evaluation | BatchLoss


def is_heard(split: str, name: str) -> bool:
    """Whether rules may look at rows of this series: the log has far more than they do."""
    return split == "val" or (split == "train" and name not in UNHEARD)


def moments(rows: Iterable[LogRow]) -> Iterator[Moment]:
    """What the rules were asked about, from the rows that count, in their order."""
    metrics: dict[str, float] = {}
    at: int | None = None
    for name, step, epoch, value in rows:
        if name == BATCH_LOSS:
            if not math.isfinite(value):
                yield BatchLoss(epoch, step, value)
            continue
        if step != at:
            metrics, at = {}, step
        if name == ASKED:
            yield Evaluation(epoch, step, dict(metrics), value)
        else:
            metrics[name] = value


class Replay:
    """Feed it moments: the decisions until a stop, and what the rest of the history was worth.

    A stop of the job's own rules ends all. One of a rule across jobs is `stop` as well, but training hears of it a
    little later: what was decided on the way is given too.
    """

    def __init__(self, rules: Sequence[EarlyStopRule], metric: str) -> None:
        self.stop: Decision | None = None
        self.metric = metric
        self.best_if_stopped: float | None = None
        self.best_seen: float | None = None
        self._mode = direction(metric)
        self._rules = EarlyStopping(rules)
        self._ended = False
        self._at_stop = self._last = (0, 0, 0.0)

    def feed(self, moment: Moment, across: Sequence[Decision] = ()) -> list[Decision]:
        """Every rule's decision, in the rules' order, and behind them those `across` jobs; none after the end.

        Raises KeyError as EarlyStopping does.
        """
        if isinstance(moment, Evaluation):
            # A batch loss comes between evaluations: the seconds before it are those of the one before.
            self._last = (moment.epoch, moment.step, moment.seconds)
            value = moment.metrics.get(self.metric, math.nan)
            if is_better(value, self.best_seen, self._mode):
                self.best_seen = value
        else:
            self._last = (moment.epoch, moment.step, self._last[2])
        if self._ended:
            return []
        if self.stop is None:
            self._at_stop, self.best_if_stopped = self._last, self.best_seen
        if isinstance(moment, Evaluation):
            decisions = self._rules.observe(moment)
        else:
            decision = self._rules.observe_batch_loss(moment.epoch, moment.step, moment.value)
            decisions = [] if decision is None else [decision]
        self._ended = first_stop(decisions) is not None
        decisions += across
        self.stop = self.stop or first_stop(decisions)
        return decisions

    def saved(self) -> dict[str, Any]:
        """`{epochs, steps, seconds}` of training that lie behind the stop; 0 without one."""
        differences = (last - stop for last, stop in zip(self._last, self._at_stop, strict=True))
        return dict(zip(("epochs", "steps", "seconds"), differences, strict=True))

    def cost(self) -> dict[str, Any]:
        """What the best would have been; `loss_of_value` is how much worse, >= 0, None where nothing is finite."""
        values = (self.best_if_stopped, self.best_seen)
        lost = None if values[0] is None or values[1] is None else abs(values[1] - values[0])
        return {
            "metric": self.metric,
            "best_if_stopped": values[0],
            "best_seen": values[1],
            "loss_of_value": lost,
        }
