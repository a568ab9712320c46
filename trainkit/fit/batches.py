"""A step up to its gradient: the samples it takes, and their loss and backward pass, in micro-batches where asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainkit.fit.device import autocast, laid_out
from trainkit.fit.evaluate import Forward
from trainkit.fit.run_state import Job
from trainkit.fit.splits import Part


def normalises_batches(network: nn.Module) -> bool:
    """Whether batch norm is in it: one sample alone has no variance to normalise by."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def count_batches(samples: int, size: int, *, joins: bool) -> int:
    """Batches of `size` that `samples` make; the last may be smaller.

    Where it `joins`, a last batch of one sample goes to the one before it (batch norm).
    """
    full, rest = divmod(samples, size)
    alone = rest == 1 and full > 0 and joins
    return max(1, full + (1 if rest and not alone else 0))


@dataclass(frozen=True, slots=True)
class Batch:
    """The samples of one step, augmented and preprocessed."""

    x: Tensor
    lengths: Tensor | None
    target: Tensor
    """(m,) class indices, (m, K) soft ones, or (m, k) values."""
    rows: Tensor
    """(m,) rows of the training part."""

    def cut(self, start: int, end: int) -> Batch:
        """Samples `start` to `end`, as views."""
        lengths = None if self.lengths is None else self.lengths[start:end]
        return Batch(self.x[start:end], lengths, self.target[start:end], self.rows[start:end])


class Steps:
    """The steps of an epoch: one optimizer update each, over `batch_size` x `gradient_accumulation_steps` samples."""

    def __init__(self, job: Job) -> None:
        train = job.spec.train
        self.samples = len(job.data.draw)
        self.micro = train.batch_size
        self.size = train.batch_size * train.gradient_accumulation_steps
        """Samples of a step."""
        self.joins = normalises_batches(job.network)
        self.count = count_batches(self.samples, self.size, joins=self.joins)
        """Steps of an epoch."""
        self._job = job
        self._mixes = job.augmenter is not None and job.augmenter.mixes

    def span(self, step: int) -> tuple[int, int]:
        """First and one past the last position, in the epoch's order, of a step counted from 0."""
        return step * self.size, (step + 1) * self.size if step + 1 < self.count else self.samples

    def pieces(self, samples: int) -> list[tuple[int, int]]:
        """The micro-batches of so many samples; with batch norm none is one sample alone."""
        count = count_batches(samples, self.micro, joins=self.joins)
        return [(i * self.micro, (i + 1) * self.micro if i + 1 < count else samples) for i in range(count)]

    def batch(self, part: Part, rows: Tensor, epoch: int, step: int) -> Batch:
        """Those rows, augmented all at once: what is drawn is f(seed, epoch, step), however the step is cut."""
        job, data = self._job, self._job.data
        x, lengths = part.take(rows)
        target = part.targets[rows]
        if job.augmenter is not None:
            if self._mixes and data.scaler is None:
                target = F.one_hot(target, data.outputs).float()
            x, mixed = job.augmenter.apply(
                x, target if self._mixes else None, seed=job.spec.train.seed, epoch=epoch, step=step
            )
            target = target if mixed is None else mixed
        return Batch(laid_out(data.preprocessing(x) if part.pending else x, job.decided), lengths, target, rows)

    def gradient(
        self,
        forward: Forward,
        batch: Batch,
        loss_sum: Tensor,
        weight_sum: Tensor,
        epoch: int,
        step: int,
        progress: float,
    ) -> tuple[Tensor, Tensor]:
        """Backward of the batch's mean loss, or of sum(w*l)/sum(w): (z (m, K), the loss), both detached.

        `loss_sum` gains sum(l) or sum(w*l), `weight_sum` sum(w).
        """
        job, class_weights = self._job, self._job.data.class_weights
        samples = len(batch.rows)
        if samples > self.micro and len(pieces := self.pieces(samples)) > 1:
            return self._accumulated(forward, batch, pieces, loss_sum, weight_sum)
        extra = None
        if job.adapter is None:
            z = forward(batch.x, batch.lengths)
        else:
            with autocast(job.decided):
                z, extra = job.adapter(job.network, batch.x, batch.lengths, epoch=epoch, step=step, progress=progress)
        losses = job.loss(z.float(), batch.target)
        if class_weights is None:
            loss = losses.mean()
            loss_sum.add_(loss.detach(), alpha=samples)
        else:
            weights = weights_for(batch.target, class_weights)
            weighted, total = (losses * weights).sum(), weights.sum()
            loss = weighted / total
            loss_sum.add_(weighted.detach())
            weight_sum.add_(total)
        (loss if extra is None else loss + extra).backward()
        return z.detach(), loss.detach()

    def _accumulated(
        self, forward: Forward, batch: Batch, pieces: list[tuple[int, int]], loss_sum: Tensor, weight_sum: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same from micro-batches. Each is divided by the whole batch's weight, so the gradients add up to its own."""
        job, class_weights = self._job, self._job.data.class_weights
        weights = None if class_weights is None else weights_for(batch.target, class_weights)
        total = len(batch.rows) if weights is None else weights.sum()
        summed = torch.zeros((), dtype=loss_sum.dtype, device=loss_sum.device)
        outputs = []
        for start, end in pieces:
            piece = batch.cut(start, end)
            z = forward(piece.x, piece.lengths)
            losses = job.loss(z.float(), piece.target)
            loss = (losses if weights is None else losses * weights[start:end]).sum()
            (loss / total).backward()
            summed.add_(loss.detach())
            outputs.append(z.detach())
        loss_sum.add_(summed)
        if weights is not None:
            weight_sum.add_(total)
        return torch.cat(outputs), summed / total


def weights_for(target: Tensor, class_weights: Tensor) -> Tensor:
    """(m,) the weight of each sample; soft targets mix the weights of their classes."""
    return class_weights[target] if target.ndim == 1 else target @ class_weights
