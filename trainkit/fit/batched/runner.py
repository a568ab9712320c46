"""Steps of all trials at once: gradients in one batched pass, updates by torch's own optimizer over the stack's rows.

Each `TrainingRun` gives the next batch and takes the result; the arithmetic between is done here. Optimizers that work
number by number do not see that a row is many parameters: K rows are K independent runs, each with its own rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trainkit.fit.batched.parameter_stack import ParameterStack
from trainkit.fit.loop.batches import Batch
from trainkit.fit.loop.result import TrainingOutcome
from trainkit.fit.loop.train_step import StepResult, sample_weights
from trainkit.fit.loop.training_run import TrainingRun
from trainkit.losses import Loss
from trainkit.optim import build_optimizer
from trainkit.regularize import max_norm_stacked_
from trainkit.spec import JobSpec


@dataclass(slots=True)
class BatchedRun:
    """A run that is trained with others, with the step that it is at."""

    number: int
    run: TrainingRun
    batch: Batch = field(init=False)
    outputs: Tensor = field(init=False)
    loss: Tensor = field(init=False)
    grad_norm: Tensor | None = None

    @property
    def spec(self) -> JobSpec:
        """The run's resolved spec."""
        return self.run.setup.spec


OnEnd = Callable[[BatchedRun, TrainingOutcome | Exception], None]


class BatchedRunner:
    """Trains runs of one network shape together, each at its own place of its own training."""

    def __init__(self, runs: Sequence[BatchedRun], on_end: OnEnd) -> None:
        self._runs, self._on_end = list(runs), on_end
        self._stack = ParameterStack([batched.run.setup.network for batched in runs])
        self._updates: StackedUpdates | None = None

    def run(self) -> None:
        """Train until the last run has ended. A run that ends, or fails by itself, leaves the others alone."""
        self._advance(_next_batch)
        while self._runs:
            if self._updates is None:
                self._updates = StackedUpdates(self._stack, self._runs)
            compute_gradients(self._stack, self._runs)
            self._updates.add_penalties(self._runs)
            self._advance(lambda batched: batched.run.check_gradient(batched.loss))
            if self._runs:
                self._updates.step(self._runs)
                self._advance(_complete_step)

    def _advance(self, go_on: Callable[[BatchedRun], bool]) -> None:
        """Let every run go on by itself; those for which that is False, or raises, have ended and leave the stack."""
        going: list[int] = []
        ended: list[tuple[BatchedRun, TrainingOutcome | Exception]] = []
        for row, batched in enumerate(self._runs):
            try:
                if go_on(batched):
                    going.append(row)
                else:
                    assert batched.run.outcome is not None
                    ended.append((batched, batched.run.outcome))
            except Exception as error:  # of this run alone
                ended.append((batched, error))
        if ended:
            self._stack.keep(going)
            self._runs = [self._runs[row] for row in going]
            if self._updates is not None:
                self._updates.keep(going, self._runs)
        for batched, how in ended:
            self._on_end(batched, how)


def _next_batch(batched: BatchedRun) -> bool:
    """Begin an epoch and take its first batch; False when the run has ended."""
    run = batched.run
    while run.outcome is None:
        run.begin_epoch()
        if (batch := run.next_step()) is not None:
            batched.batch = batch
            return True
        run.end_epoch()
    return False


def _complete_step(batched: BatchedRun) -> bool:
    """Complete the step and take the next batch, of the next epoch where this one is over."""
    run = batched.run
    run.complete_step(StepResult(batched.outputs, batched.loss, batched.grad_norm))
    if (batch := run.next_step()) is not None:
        batched.batch = batch
        return True
    if run.outcome is None:
        run.end_epoch()
    return _next_batch(batched)


def compute_gradients(stack: ParameterStack, runs: Sequence[BatchedRun]) -> None:
    """Forward and backward of every run's batch, penalties left out; batches of the same size are computed at once."""
    sizes: dict[int, list[int]] = {}
    for row, batched in enumerate(runs):
        sizes.setdefault(len(batched.batch.rows), []).append(row)
    for samples, rows in sizes.items():
        same_size = [runs[row] for row in rows]
        x = torch.stack([batched.batch.x for batched in same_size])
        targets = torch.stack([batched.batch.target for batched in same_size])
        weights = _weights(same_size)
        loss_of = partial(_mean_losses, runs[0].run.setup.loss, targets, weights)
        generators = [dropout for batched in same_size if (dropout := batched.run.setup.dropout) is not None]
        z, losses = stack.gradient(rows, x, loss_of, generators)
        totals = None if weights is None else weights.sum(1)
        for place, batched in enumerate(same_size):
            sums = batched.run.loss_sums
            batched.outputs, batched.loss = z[place], losses[place]
            if totals is None:
                sums.loss.add_(batched.loss, alpha=samples)
            else:
                sums.loss.add_(batched.loss * totals[place])
                sums.weight.add_(totals[place])


def _mean_losses(loss: Loss, targets: Tensor, weights: Tensor | None, z: Tensor) -> Tensor:
    """(k,) each run's mean, or sum(w*l)/sum(w), of its own B losses."""
    losses = loss(z.flatten(0, 1).float(), targets.flatten(0, 1)).view(z.shape[:2])
    return losses.mean(1) if weights is None else (losses * weights).sum(1) / weights.sum(1)


def _weights(runs: Sequence[BatchedRun]) -> Tensor | None:
    """(k, B) the samples' weights where classes are weighted."""
    weights = [
        sample_weights(batched.batch.target, class_weights)
        for batched in runs
        if (class_weights := batched.run.setup.data.class_weights) is not None
    ]
    return torch.stack(weights) if weights else None


@dataclass(slots=True)
class StackRow:
    """A run's parameters as the optimizer has them: its weights and the rest, or both as one where none decays."""

    pieces: list[nn.Parameter]
    spans: list[tuple[int, int]]
    groups: list[dict[str, Any]]
    """The optimizer's groups that the pieces are in."""


class StackedUpdates:
    """Penalties, clipping, the optimizer's step and max-norm for the runs of a stack."""

    def __init__(self, stack: ParameterStack, runs: Sequence[BatchedRun]) -> None:
        self._stack = stack
        groups: dict[Any, dict[str, Any]] = {}
        self._rows = []
        for number, batched in enumerate(runs):
            spec = batched.spec
            row = StackRow([], _spans(stack, batched), [])
            for part, (start, end) in enumerate(row.spans):
                key = (*_trajectory(batched, number), part)
                decay, l1 = _shrinkage(batched) if part == 0 else (0.0, 0.0)
                amounts = {"lr": spec.optimizer.lr, "weight_decay": decay, "proximal_l1": l1}
                group = groups.setdefault(key, {"params": [], "name": f"rows {number}", **amounts})
                row.pieces.append(nn.Parameter(stack.values[number, start:end]))
                group["params"].append(row.pieces[-1])
            self._rows.append(row)
        self._optimizer = build_optimizer(runs[0].spec.optimizer, list(groups.values()))
        for row in self._rows:
            row.groups = [self._group_of(piece) for piece in row.pieces]
        self._state_is_shared = False
        self._point(runs)

    def _group_of(self, piece: nn.Parameter) -> dict[str, Any]:
        return next(g for g in self._optimizer.param_groups if any(one is piece for one in g["params"]))

    def _point(self, runs: Sequence[BatchedRun]) -> None:
        """Let the rows' pieces be views of the stack as it is now, and collect the bounds of the runs."""
        stack = self._stack
        for number, row in enumerate(self._rows):
            for piece, (start, end) in zip(row.pieces, row.spans, strict=True):
                piece.data, piece.grad = stack.values[number, start:end], stack.gradients[number, start:end]
        bounds = [batched.spec.regularize.max_norm for batched in runs]
        self._bounds = None
        if any(bounds):
            self._bounds = self._column([math.inf if bound is None else bound for bound in bounds]).squeeze(1)

    def _column(self, numbers: Sequence[float]) -> Tensor:
        """(K, 1), one number a run."""
        return torch.tensor(numbers, dtype=self._stack.values.dtype, device=self._stack.values.device).unsqueeze(1)

    def keep(self, rows: Sequence[int], runs: Sequence[BatchedRun]) -> None:
        """Keep the runs of these rows; the stack has dropped the others already."""
        for number in set(range(len(self._rows))) - set(rows):
            for piece, group in zip(self._rows[number].pieces, self._rows[number].groups, strict=True):
                group["params"] = [one for one in group["params"] if one is not piece]
                self._optimizer.state.pop(piece, None)
        self._optimizer.param_groups = [group for group in self._optimizer.param_groups if group["params"]]
        self._rows = [self._rows[number] for number in rows]
        self._point(runs)

    def add_penalties(self, runs: Sequence[BatchedRun]) -> None:
        """grad += l2 w + l1 sign(w), the factors each run's own."""
        stack = self._stack
        weights, gradients = stack.values[:, : stack.weights], stack.gradients[:, : stack.weights]
        factors = [batched.spec.regularize.gradient_factors(batched.run.batches.samples) for batched in runs]
        if any(factor.l2 for factor in factors):
            gradients.addcmul_(weights, self._column([factor.l2 for factor in factors]))
        if any(factor.l1 for factor in factors):
            gradients.addcmul_(weights.sign(), self._column([factor.l1 for factor in factors]))

    def step(self, runs: Sequence[BatchedRun]) -> None:
        """One update of every run, at the rates that its own schedule has set."""
        options, gradients = runs[0].spec.train, self._stack.gradients
        if options.clip_norm is not None:
            norms = torch.linalg.vector_norm(gradients, dim=1)
            gradients.mul_((options.clip_norm / (norms + 1e-6)).clamp(max=1.0).unsqueeze(1))
            for batched, norm in zip(runs, norms, strict=True):
                batched.grad_norm = norm
        if options.clip_value is not None:
            gradients.clamp_(-options.clip_value, options.clip_value)
        for row, batched in zip(self._rows, runs, strict=True):
            for group in row.groups:
                group["lr"] = batched.run.state.phase.optimizer.param_groups[0]["lr"]
        self._optimizer.step()
        if not self._state_is_shared:
            self._share_state(runs)
        if self._bounds is not None:
            for place in self._stack.places:
                if place.end <= self._stack.weights:
                    max_norm_stacked_(place.of(self._stack.values), self._bounds)

    def _share_state(self, runs: Sequence[BatchedRun]) -> None:
        """Let each run's own optimizer see its part of the state, for checkpoints that the run alone can resume."""
        self._state_is_shared = True
        for network, row, batched in zip(self._stack.networks, self._rows, runs, strict=True):
            optimizer = batched.run.state.phase.optimizer
            for piece, (start, end) in zip(row.pieces, row.spans, strict=True):
                for place in self._stack.places:
                    if start <= place.start < end:
                        optimizer.state[network.get_parameter(place.name)] = {
                            name: value[place.start - start : place.end - start].view(place.shape)
                            if isinstance(value, Tensor) and value.shape == piece.shape
                            else value
                            for name, value in self._optimizer.state[piece].items()
                        }


def _shrinkage(batched: BatchedRun) -> tuple[float, float]:
    """(weight decay, factor of L1's proximal step) of a run's weights: what its optimizer does beside the gradient."""
    regularize = batched.spec.regularize
    return regularize.weight_decay, regularize.proximal_l1(batched.run.batches.samples)


def _spans(stack: ParameterStack, batched: BatchedRun) -> list[tuple[int, int]]:
    """Pieces of a row: biases and norms never shrink, so where the weights do the row is cut in two."""
    length = stack.values.shape[1]
    if not any(_shrinkage(batched)) or stack.weights == length:
        return [(0, length)]
    return [(0, stack.weights), (stack.weights, length)]


def _trajectory(batched: BatchedRun, number: int) -> tuple[Any, ...]:
    """Runs for which this is the same have the same rate in every step: one call of the optimizer serves them all."""
    spec = batched.spec
    if spec.schedule.kind == "reduce_on_plateau":
        return (number,)
    schedule = spec.schedule.model_dump_json()
    steps = batched.run.batches.count
    return spec.optimizer.lr, *_shrinkage(batched), schedule, spec.train.epochs, steps
