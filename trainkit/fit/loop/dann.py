"""Domain-adversarial training: a domain classifier behind a gradient reversal (Ganin et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainkit.fit.encoding.prepare import Part
from trainkit.fit.seeding import derive, epoch_order
from trainkit.nn.network import Network
from trainkit.spec.training import Adapt


class _Reverse(torch.autograd.Function):
    """The identity forward, -strength times the gradient backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * -ctx.strength, None


def reversal_strength(weight: float, progress: float) -> float:
    """weight * (2 / (1 + exp(-10 p)) - 1): 0 at the start, so that noisy early features are not disturbed."""
    return weight * (2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0)


class DomainAdapter(nn.Module):
    """Tells source from target features; the reversed gradient makes the body forget the difference.

    Its parameters are trained beside the network's and go into checkpoints, not into the finished model.
    """

    def __init__(
        self, spec: Adapt, features: int, target: Part, preprocess: Callable[[Tensor], Tensor], seed: int
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "domain"))
            layers: list[nn.Module] = []
            for width in spec.hidden:
                layers += [nn.Linear(features, width), nn.ReLU()]
                features = width
            self.classifier = nn.Sequential(*layers, nn.Linear(features, 1))
        self.weight = spec.weight
        self.seed = derive(seed, "target")
        self._target = target
        self._preprocess = preprocess

    def forward(
        self, network: Network, x: Tensor, side_input: Tensor | None, *, epoch: int, step: int, progress: float
    ) -> tuple[Tensor, Tensor]:
        """(z of the source batch, mean domain loss over source and target batch)."""
        target_x, target_side_input = self._batch(len(x), epoch, step, x.device)
        if side_input is None and target_side_input is None and x.shape[1:] == target_x.shape[1:]:
            # One pass over both halves: batch norm then measures what the network will meet, the mixture.
            source, target = network.features(torch.cat([x, target_x])).split([len(x), len(target_x)])
        else:
            source, target = network.features(x, side_input), network.features(target_x, target_side_input)
        both = _Reverse.apply(torch.cat([source, target]), reversal_strength(self.weight, progress))
        domain = torch.cat([torch.zeros(len(source)), torch.ones(len(target))]).to(x.device)
        loss = F.binary_cross_entropy_with_logits(self.classifier(both).squeeze(1).float(), domain)
        return network.head(source), loss

    def _batch(self, size: int, epoch: int, step: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """As many target samples as source samples, running round the target data in the epoch's own order."""
        count = len(self._target)
        order = epoch_order(count, self.seed, epoch)
        rows = order[(torch.arange(size) + step * size) % count].to(device)
        x, side_input = self._target.take(rows)
        return (self._preprocess(x) if self._target.pending else x), side_input
