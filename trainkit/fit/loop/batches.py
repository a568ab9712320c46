"""How an epoch is cut into steps, a step into micro-batches, and what samples a step takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainkit.fit.device import in_memory_format
from trainkit.fit.encoding.prepare import Part
from trainkit.fit.loop.setup import RunSetup
from trainkit.fit.seeding import epoch_order


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
    side_input: Tensor | None
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
        side_input = None if self.side_input is None else self.side_input[start:end]
        x, target, rows = self.x[start:end], self.target[start:end], self.rows[start:end]
        return Batch(x, side_input, target, rows, self.epoch, self.step, self.progress)


class BatchPlan:
    """The steps of an epoch: one optimizer update each, over `batch_size` x `gradient_accumulation_steps` samples.

    The run is a stream of passes over the training part, each in an order of its own. An epoch is one pass, or
    `steps_per_epoch` steps of the stream, which go on where the epoch before them stopped.
    """

    def __init__(self, setup: RunSetup) -> None:
        train = setup.spec.train
        self.samples = len(setup.data.draw)
        """Samples of a pass."""
        self._setup = setup
        self._micro_batch = train.batch_size
        self.size = train.batch_size * train.gradient_accumulation_steps
        """Samples of a step."""
        self._joins = normalises_batches(setup.network)
        self._count_in_pass = count_batches(self.samples, self.size, joins=self._joins)
        self.count = train.steps_per_epoch or self._count_in_pass
        """Steps of an epoch."""
        self._mixes = setup.augmenter is not None and setup.augmenter.mixes

    def order(self, epoch: int) -> Tensor:
        """(m,) rows of the training part in the order in which the epoch's steps take them; decided by (seed, epoch)."""
        first, last = self._samples_before(epoch, 0), self._samples_before(epoch, self.count)
        number, skipped = divmod(first, self.samples)
        seed, passes = self._setup.spec.train.seed, range(number + 1, -(-last // self.samples) + 1)
        rows = torch.cat([self._setup.data.draw[epoch_order(self.samples, seed, one)] for one in passes])
        return rows[skipped : skipped + last - first]

    def span(self, epoch: int, step: int) -> tuple[int, int]:
        """First and one past the last position, in the epoch's order, of a step counted from 0."""
        before = self._samples_before(epoch, 0)
        return self._samples_before(epoch, step) - before, self._samples_before(epoch, step + 1) - before

    def samples_of(self, epoch: int) -> int:
        """Samples that the epoch's steps take; one that is taken twice counts twice."""
        return self._samples_before(epoch + 1, 0) - self._samples_before(epoch, 0)

    def _samples_before(self, epoch: int, step: int) -> int:
        """Samples of the stream before a step."""
        passes, batches = divmod((epoch - 1) * self.count + step, self._count_in_pass)
        return passes * self.samples + batches * self.size

    def micro_batches(self, samples: int) -> list[tuple[int, int]]:
        """(start, end) of the micro-batches of a step's samples; with batch norm none is a single sample."""
        if samples <= self._micro_batch:
            return [(0, samples)]
        size, count = self._micro_batch, count_batches(samples, self._micro_batch, joins=self._joins)
        return [(i * size, (i + 1) * size if i + 1 < count else samples) for i in range(count)]

    def batch(self, part: Part, rows: Tensor, epoch: int, step: int) -> Batch:
        """The samples at `rows`, augmented all at once: what is drawn is f(seed, epoch, step), however the step is cut."""
        setup, data = self._setup, self._setup.data
        x, side_input = part.take(rows)
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
        return Batch(x, side_input, target, rows, epoch, step, progress)
