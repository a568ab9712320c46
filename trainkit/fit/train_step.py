"""The arithmetic of a step, as pieces of work that the loop hands out: to be done alone, or for many trials at once."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

from torch import Tensor, nn

from trainkit.fit.batches import Batch, Steps
from trainkit.fit.phases import ActivePhase
from trainkit.fit.run_state import TrainingOutcome
from trainkit.regularize import add_penalty_gradient_, max_norm_
from trainkit.spec import JobSpec


@dataclass(slots=True)
class Gradient:
    """The gradient of a step's loss, with that of the penalties, is wanted: in `grad` of the open parameters."""

    spec: JobSpec
    now_open: ActivePhase
    batches: Steps
    batch: Batch
    loss_sum: Tensor
    """Gains sum(l), or sum(w*l) with class weights; `weight_sum` then gains sum(w)."""
    weight_sum: Tensor
    epoch: int
    step: int
    """Of the epoch, from 0."""
    progress: float
    """Share of all steps that is done."""
    z: Tensor = field(init=False)
    """The answer: raw outputs (m, K) ..."""
    loss: Tensor = field(init=False)
    """... and the batch's loss without penalties, both detached."""

    def do(self) -> None:
        """Do it for this run alone."""
        regularize, now_open = self.spec.regularize, self.now_open
        self.z, self.loss = self.batches.gradient(
            now_open.forward, self.batch, self.loss_sum, self.weight_sum, self.epoch, self.step, self.progress
        )
        if regularize.l1 or regularize.l2:
            add_penalty_gradient_(now_open.penalised, regularize.l1, regularize.l2, self.batches.samples)


@dataclass(slots=True)
class Update:
    """One update with that gradient is wanted: clipping, the optimizer's step at the rates it now has, max-norm."""

    spec: JobSpec
    now_open: ActivePhase
    clipped: Tensor | None = None
    """The answer: the norm that `clip_norm` has found."""

    def do(self) -> None:
        """Do it for this run alone."""
        options, now_open = self.spec.train, self.now_open
        if options.clip_norm is not None:
            self.clipped = nn.utils.clip_grad_norm_(now_open.parameters, options.clip_norm)
        if options.clip_value is not None:
            nn.utils.clip_grad_value_(now_open.parameters, options.clip_value)
        now_open.optimizer.step()
        for parameter in now_open.parameters:  # what zero_grad does, at a third of its cost
            parameter.grad = None
        if self.spec.regularize.max_norm is not None:
            for module in now_open.bounded:
                max_norm_(module, self.spec.regularize.max_norm)


Work = Gradient | Update
Training = Generator[Work, None, TrainingOutcome]
"""A run that waits for each piece of its work to be done."""


def alone(training: Training) -> TrainingOutcome:
    """Do all of a run's work, as it comes."""
    while True:
        try:
            work = next(training)
        except StopIteration as end:
            ended: TrainingOutcome = end.value
            return ended
        work.do()
