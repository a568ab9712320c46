"""Learning-rate schedules: pure functions of the step, so that a resumed run needs no history of its own to go on.

Only reduce_on_plateau remembers anything (what it observed), and `state` holds that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trainkit.spec.metrics import direction
from trainkit.spec.schedules import (
    Constant,
    Cosine,
    Exponential,
    MultiStep,
    OneCycle,
    ReduceOnPlateau,
    ScheduleSpec,
    Step,
)


class Schedule:
    """Rates of each parameter group at each step, counted from 0."""

    def __init__(self, spec: ScheduleSpec, base_rates: Sequence[float], steps_per_epoch: int, epochs: int) -> None:
        self.spec, self.base_rates = spec, tuple(base_rates)
        self.steps_per_epoch, self.total = steps_per_epoch, max(1, steps_per_epoch * epochs)
        self.warmup = min(round(spec.warmup_epochs * steps_per_epoch), self.total)
        self._drops = 0
        self._best: float | None = None
        self._misses = 0

    def rates(self, step: int) -> list[float]:
        """The rate of each group for the update number `step` (from 0)."""
        if step < self.warmup:
            # rises to the full rate at the first step after the warm-up, and never is 0
            return [base * (step + 1) / (self.warmup + 1) for base in self.base_rates]
        factor = self._factor(step)
        least = self.spec.min_lr if isinstance(self.spec, ReduceOnPlateau) else 0.0
        return [max(base * factor, min(least, base)) for base in self.base_rates]

    def _factor(self, step: int) -> float:
        epoch = step // self.steps_per_epoch
        match self.spec:
            case Constant():
                return 1.0
            case Step(every_epochs=every, gamma=gamma):
                return float(gamma ** (epoch // every))
            case MultiStep(milestones=milestones, gamma=gamma):
                return float(gamma ** sum(epoch >= milestone for milestone in milestones))
            case Exponential(gamma=gamma):
                return float(gamma**epoch)
            case Cosine(floor=floor):
                progress = (step - self.warmup) / max(1, self.total - self.warmup)
                return floor + (1 - floor) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
            case OneCycle():
                return self._one_cycle(self.spec, step - self.warmup, self.total - self.warmup)
            case ReduceOnPlateau(factor=factor):
                return float(factor**self._drops)

    @staticmethod
    def _one_cycle(spec: OneCycle, step: int, total: int) -> float:
        """Two half cosines: 1/div to 1 at `rise`, then 1 to 1/div/final_div at the last step (as torch's OneCycleLR)."""
        peak, last = spec.rise * total - 1, total - 1
        first, final = 1 / spec.div, 1 / spec.div / spec.final_div
        if step <= peak:
            return _half_cosine(first, 1.0, step / peak if peak > 0 else 1.0)
        return _half_cosine(1.0, final, min(1.0, (step - peak) / max(1e-12, last - peak)))

    def observe(self, value: float) -> None:
        """An evaluation's monitored metric: after `patience` without improvement by more than `min_delta` the rate drops.

        A value that is not finite never is an improvement. As torch's ReduceLROnPlateau with an absolute threshold, but that
        `patience` misses are enough (torch waits for one more). Other schedules ignore it.
        """
        spec = self.spec
        if not isinstance(spec, ReduceOnPlateau):
            return
        mode = direction(spec.monitor) if spec.mode == "auto" else spec.mode
        signed = value if mode == "min" else -value
        if math.isfinite(signed) and (self._best is None or signed < self._best - spec.min_delta):
            self._best, self._misses = signed, 0
            return
        self._misses += 1
        if self._misses >= spec.patience:
            self._drops, self._misses = self._drops + 1, 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold; the patience itself comes from the spec."""
        return {"drops": self._drops, "best": self._best, "misses": self._misses}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self._drops, self._best, self._misses = state["drops"], state["best"], state["misses"]


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def build_schedule(spec: ScheduleSpec, base_rates: Sequence[float], steps_per_epoch: int, epochs: int) -> Schedule:
    """A schedule for groups whose full rates are `base_rates`."""
    return Schedule(spec, base_rates, steps_per_epoch, epochs)
