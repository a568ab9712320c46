"""Batch mixing: samples and their targets are blended pairwise (MixUp, Zhang et al. 2018; CutMix, Yun et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from trainkit.augment.pixel import rectangles


def beta(alpha: float, count: int, random: torch.Generator) -> Tensor:
    """(count,) from Beta(alpha, alpha), as g1 / (g1 + g2) of two Gamma draws (Marsaglia and Tsang 2000)."""
    first, second = (_gamma(alpha, count, random) for _ in range(2))
    total = first + second
    # both can underflow for a tiny alpha: then the draw sits at one end, as Beta(0+, 0+) does
    share = torch.where(
        total > 0, first / torch.where(total > 0, total, 1), torch.rand(count, generator=random).round()
    )
    return share.to(torch.float32)


def _gamma(alpha: float, count: int, random: torch.Generator) -> Tensor:
    boost = torch.rand(count, generator=random, dtype=torch.float64) ** (1 / alpha) if alpha < 1 else 1.0
    shape = alpha + 1 if alpha < 1 else alpha
    d = shape - 1 / 3
    c = 1 / (9 * d) ** 0.5
    drawn = torch.full((count,), float("nan"), dtype=torch.float64)
    while bool((missing := drawn.isnan()).any()):
        normal = torch.randn(count, generator=random, dtype=torch.float64)
        v = (1 + c * normal) ** 3
        u = torch.rand(count, generator=random, dtype=torch.float64)
        accepted = (v > 0) & (u.log() < 0.5 * normal**2 + d - d * v + d * v.clamp(min=1e-300).log())
        drawn = torch.where(missing & accepted, d * v, drawn)
    return drawn * boost


def mixup(x: Tensor, y: Tensor | None, alpha: float, random: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """t*x_i + (1-t)*x_j and the same for the targets; t and the partner j are each sample's own."""
    share = beta(alpha, len(x), random).to(x.device, x.dtype)
    partner = torch.randperm(len(x), generator=random).to(x.device)
    mixed = _blend(x, x[partner], share)
    return mixed, None if y is None else _blend(y, y[partner], share.to(y.dtype))


def cutmix(x: Tensor, y: Tensor | None, alpha: float, random: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """A rectangle of x_j in x_i; the targets are mixed by the area that was really replaced."""
    kept = beta(alpha, len(x), random)
    partner = torch.randperm(len(x), generator=random).to(x.device)
    area = 1 - kept
    mask, share = rectangles(
        len(x), (x.shape[2], x.shape[3]), area, torch.full_like(area, x.shape[3] / x.shape[2]), random
    )
    mixed = torch.where(mask[:, None].to(x.device), x[partner], x)
    return mixed, None if y is None else _blend(y, y[partner], (1 - share).to(y.device, y.dtype))


def _blend(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    weight = share.reshape(-1, *[1] * (first.ndim - 1))
    return weight * first + (1 - weight) * second
