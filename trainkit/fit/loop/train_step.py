"""One optimizer update of one run, from the forward pass to max-norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainkit.fit.device import autocast
from trainkit.fit.evaluation.evaluate import Forward
from trainkit.fit.loop.batches import Batch, BatchPlan
from trainkit.fit.loop.phases import ActivePhase
from trainkit.fit.loop.setup import RunSetup
from trainkit.regularize import add_penalty_gradient_, max_norm_


class LossSums(NamedTuple):
    """Sums over the samples of an epoch, added to in place."""

    loss: Tensor
    """sum(l), or sum(w*l) with class weights."""
    weight: Tensor
    """sum(w) with class weights, else 0."""


class StepResult(NamedTuple):
    """What a step leaves behind, on the device."""

    outputs: Tensor
    """Raw outputs (m, K) of the forward pass."""
    loss: Tensor
    """Mean loss of the batch, without penalties."""
    grad_norm: Tensor | None
    """Norm of the gradient before `clip_norm`; None where nothing clips by norm."""


def train_step(
    setup: RunSetup,
    batches: BatchPlan,
    phase: ActivePhase,
    batch: Batch,
    sums: LossSums,
    check_gradient: Callable[[Tensor], bool],
) -> StepResult | None:
    """Update the weights once.

    `check_gradient(loss)` is called when the gradient is there and the weights are still those that made it. Where it
    returns False the weights stay as they are, and the result is None.
    """
    train, regularize = setup.spec.train, setup.spec.regularize

    outputs, loss = forward_backward(setup, batches, phase.forward, batch, sums)
    if regularize.l1 or regularize.l2:
        add_penalty_gradient_(phase.penalised, *regularize.gradient_factors(batches.samples))
    if not check_gradient(loss):
        return None

    grad_norm = None
    if train.clip_norm is not None:
        grad_norm = nn.utils.clip_grad_norm_(phase.parameters, train.clip_norm)
    if train.clip_value is not None:
        nn.utils.clip_grad_value_(phase.parameters, train.clip_value)

    phase.optimizer.step()
    for parameter in phase.parameters:  # what zero_grad does, at a third of its cost
        parameter.grad = None
    if regularize.max_norm is not None:
        for module in phase.bounded:
            max_norm_(module, regularize.max_norm)
    return StepResult(outputs, loss, grad_norm)


def forward_backward(
    setup: RunSetup, batches: BatchPlan, forward: Forward, batch: Batch, sums: LossSums
) -> tuple[Tensor, Tensor]:
    """Gradient of the batch's loss, mean(l) or sum(w*l)/sum(w): (raw outputs (m, K), loss), both detached."""
    micro_batches = batches.micro_batches(len(batch.rows))
    if len(micro_batches) > 1:
        return _accumulate(setup, forward, batch, micro_batches, sums)
    domain_loss = None
    if setup.adapter is None:
        z = forward(batch.x, batch.side_input)
    else:
        with autocast(setup.runtime):
            z, domain_loss = setup.adapter(
                setup.network, batch.x, batch.side_input, epoch=batch.epoch, step=batch.step, progress=batch.progress
            )
    losses = setup.loss(z.float(), batch.target)
    if setup.data.class_weights is None:
        loss = losses.mean()
        sums.loss.add_(loss.detach(), alpha=len(batch.rows))
    else:
        weights = sample_weights(batch.target, setup.data.class_weights)
        weighted, total = (losses * weights).sum(), weights.sum()
        loss = weighted / total
        sums.loss.add_(weighted.detach())
        sums.weight.add_(total)
    (loss if domain_loss is None else loss + domain_loss).backward()
    return z.detach(), loss.detach()


def _accumulate(
    setup: RunSetup, forward: Forward, batch: Batch, micro_batches: list[tuple[int, int]], sums: LossSums
) -> tuple[Tensor, Tensor]:
    """The same from micro-batches. Each is divided by the whole batch's weight, so that the gradients add up to its."""
    class_weights = setup.data.class_weights
    weights = None if class_weights is None else sample_weights(batch.target, class_weights)
    total = len(batch.rows) if weights is None else weights.sum()
    summed = torch.zeros((), dtype=sums.loss.dtype, device=sums.loss.device)
    outputs = []
    for start, end in micro_batches:
        micro_batch = batch.cut(start, end)
        z = forward(micro_batch.x, micro_batch.side_input)
        losses = setup.loss(z.float(), micro_batch.target)
        loss = (losses if weights is None else losses * weights[start:end]).sum()
        (loss / total).backward()
        summed.add_(loss.detach())
        outputs.append(z.detach())
    sums.loss.add_(summed)
    if weights is not None:
        sums.weight.add_(total)
    return torch.cat(outputs), summed / total


def sample_weights(target: Tensor, class_weights: Tensor) -> Tensor:
    """(m,) the weight of each sample; soft targets mix the weights of their classes."""
    return class_weights[target] if target.ndim == 1 else target @ class_weights
