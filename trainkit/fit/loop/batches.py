"""How an epoch is cut into steps, a step into micro-batches, and what samples a step takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from trainkit.fit.device import in_memory_format
from trainkit.fit.encoding.prepare import Part
from trainkit.fit.loop.setup import RunSetup


def normalises_batches(network: nn.Module) -> bool:
    """Whether the network has batch norm: a batch of one sample has no variance to normalise by."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def count_batches(samples: int, size: int, *, joins: bool) -> int:
    """Number of batches of `size` that `samples` make; the last may be smaller.

    Where it `joins`, a last batch of one sample goes to the one before it (batch norm).
    """
    full, rest = divmod(samples, size)
    alone = rest == 1 and full > 0 and joins
    return max(1, full + (1 if rest and not alone else 0))


@dataclass(frozen=True, slots=True)
class Batch:
    """The samples of one step, augmented and preprocessed."""

    x: Tensor
    """(m, ...) inputs."""
    lengths: Tensor | None
    target: Tensor
    """(m,) class indices, (m, K) soft ones, or (m, k) values."""
    rows: Tensor
    """(m,) rows of the training part."""
    epoch: int
    """From 1."""
    step: int
    """Within the epoch, from 0."""
    progress: float
    """Share of the run's steps that are done."""

    def cut(self, start: int, end: int) -> Batch:
        """Samples `start` to `end`, as views."""
        lengths = None if self.lengths is None else self.lengths[start:end]
        x, target, rows = self.x[start:end], self.target[start:end], self.rows[start:end]
        return Batch(x, lengths, target, rows, self.epoch, self.step, self.progress)


class BatchPlan:
    """The steps of an epoch: one optimizer update each, over `batch_size` x `gradient_accumulation_steps` samples."""

    def __init__(self, setup: RunSetup) -> None:
        train = setup.spec.train
        self.samples = len(setup.data.draw)
        """Samples of an epoch."""
        self._setup = setup
        self._micro_batch = train.batch_size
        self.size = train.batch_size * train.gradient_accumulation_steps
        """Samples of a step."""
        self._joins = normalises_batches(setup.network)
        self.count = count_batches(self.samples, self.size, joins=self._joins)
        """Steps of an epoch."""
        self._mixes = setup.augmenter is not None and setup.augmenter.mixes

    def span(self, step: int) -> tuple[int, int]:
        """First and one past the last position, in the epoch's order, of a step counted from 0."""
        return step * self.size, (step + 1) * self.size if step + 1 < self.count else self.samples

    def micro_batches(self, samples: int) -> list[tuple[int, int]]:
        """(start, end) of the micro-batches of a step's samples; with batch norm none is a single sample."""
        if samples <= self._micro_batch:
            return [(0, samples)]
        size, count = self._micro_batch, count_batches(samples, self._micro_batch, joins=self._joins)
        return [(i * size, (i + 1) * size if i + 1 < count else samples) for i in range(count)]

    def batch(self, part: Part, rows: Tensor, epoch: int, step: int) -> Batch:
        """The samples at `rows`, augmented all at once: what is drawn is f(seed, epoch, step), however the step is cut."""
        setup, data = self._setup, self._setup.data
        x, lengths = part.take(rows)
        target = part.targets[rows]
        if setup.augmenter is not None:
            if self._mixes and data.scaler is None:
                target = F.one_hot(target, data.outputs).float()
            x, mixed = setup.augmenter.apply(
                x, target if self._mixes else None, seed=setup.spec.train.seed, epoch=epoch, step=step
            )
            target = target if mixed is None else mixed
        x = in_memory_format(data.preprocessing(x) if part.pending else x, setup.runtime)
        progress = ((epoch - 1) * self.count + step) / (self.count * setup.spec.train.epochs)
        return Batch(x, lengths, target, rows, epoch, step, progress)
