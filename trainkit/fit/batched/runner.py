"""Rounds of one step for every trial that still trains: the trials' own loops ask, and are answered all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from trainkit.fit.batched.parameter_stack import Stack
from trainkit.fit.batched.update import Updates
from trainkit.fit.batches import weights_for
from trainkit.fit.loop import training
from trainkit.fit.run_state import Job, TrainingOutcome
from trainkit.fit.train_step import Gradient, Training, Update, Work
from trainkit.losses import Loss


@dataclass(slots=True)
class Trial:
    """A run among those of a stack."""

    number: int
    job: Job
    training: Training = field(init=False)
    work: Work = field(init=False)

    def __post_init__(self) -> None:
        self.training = training(self.job)


Done = Callable[[Trial, TrainingOutcome | Exception], None]


class Rounds:
    """Trials of one stack, each at its own place of its own run."""

    def __init__(self, trials: Sequence[Trial], done: Done) -> None:
        self._trials, self._done = list(trials), done
        self._stack = Stack([trial.job.network for trial in trials])
        self._updates: Updates | None = None

    def run(self) -> None:
        """Until the last trial has ended. A trial that ends, or fails by itself, leaves the others alone."""
        self._advance()
        while self._trials:
            works = [trial.work for trial in self._trials if isinstance(trial.work, Gradient)]
            if self._updates is None:
                self._updates = Updates(self._stack, works)
            gradients(self._stack, works, [trial.job for trial in self._trials])
            self._updates.penalise(works)
            self._advance()
            if self._trials:
                self._updates.step([trial.work for trial in self._trials if isinstance(trial.work, Update)])
                self._advance()

    def _advance(self) -> None:
        """Let every trial go on to its next piece of work; those without one have ended."""
        going, ended = [], []
        for row, trial in enumerate(self._trials):
            try:
                trial.work = next(trial.training)
                going.append(row)
            except StopIteration as end:
                ended.append((trial, end.value))
            except Exception as error:  # of this trial's own doing
                ended.append((trial, error))
        if ended:
            self._stack.keep(going)
            self._trials = [self._trials[row] for row in going]
            if self._updates is not None:
                self._updates.keep(going, [trial.work for trial in self._trials])
        for trial, how in ended:
            self._done(trial, how)


def gradients(stack: Stack, works: Sequence[Gradient], jobs: Sequence[Job]) -> None:
    """Answer every trial's wish for a gradient, penalties left out; batches of the same size are done at once."""
    sizes: dict[int, list[int]] = {}
    for row, work in enumerate(works):
        sizes.setdefault(len(work.batch.rows), []).append(row)
    for samples, rows in sizes.items():
        own = [works[row] for row in rows]
        x = torch.stack([work.batch.x for work in own])
        targets = torch.stack([work.batch.target for work in own])
        weights = _weights(own, [jobs[row] for row in rows])
        loss_of = partial(_mean_losses, jobs[0].loss, targets, weights)
        generators = [dropout for row in rows if (dropout := jobs[row].dropout) is not None]
        z, losses = stack.gradient(rows, x, loss_of, generators)
        totals = None if weights is None else weights.sum(1)
        for place, work in enumerate(own):
            work.z, work.loss = z[place], losses[place]
            if totals is None:
                work.loss_sum.add_(work.loss, alpha=samples)
            else:
                work.loss_sum.add_(work.loss * totals[place])
                work.weight_sum.add_(totals[place])


def _mean_losses(loss: Loss, targets: Tensor, weights: Tensor | None, z: Tensor) -> Tensor:
    """(k,) each trial's mean, or sum(w*l)/sum(w), of its own B losses."""
    losses = loss(z.flatten(0, 1).float(), targets.flatten(0, 1)).view(z.shape[:2])
    return losses.mean(1) if weights is None else (losses * weights).sum(1) / weights.sum(1)


def _weights(works: Sequence[Gradient], jobs: Sequence[Job]) -> Tensor | None:
    """(k, B) the samples' weights where classes are weighted."""
    own = [
        weights_for(work.batch.target, job.data.class_weights)
        for work, job in zip(works, jobs, strict=True)
        if job.data.class_weights is not None
    ]
    return torch.stack(own) if own else None
