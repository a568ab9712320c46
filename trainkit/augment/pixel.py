"""Steps on values: noise for any sample, shifts and erased rectangles for images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainkit.augment.seeding import coin, uniform
from trainkit.spec.augment import RandomErasing


def noise(x: Tensor, std: float, random: torch.Generator) -> Tensor:
    """x + N(0, std^2), every value its own draw."""
    return x + std * torch.randn(x.shape, generator=random).to(x.device, x.dtype)


def value_shift(x: Tensor, amount: float, random: torch.Generator) -> Tensor:
    """One number from [-amount, amount] for each channel of each sample."""
    shift = (torch.rand(x.shape[:2], generator=random) * 2 - 1) * amount
    return x + shift.to(x.device, x.dtype)[:, :, None, None]


def rectangles(
    count: int, size: tuple[int, int], area: Tensor, ratio: Tensor, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """((count, H, W) bool masks, their true shares of the image): `area` as a fraction, `ratio` width over height."""
    height, width = size
    w = (area * ratio * height * width).sqrt().round().clamp(1, width)
    h = (area * height * width / ratio).sqrt().round().clamp(1, height)
    left = (torch.rand(count, generator=random) * (width - w + 1)).floor()
    top = (torch.rand(count, generator=random) * (height - h + 1)).floor()
    columns, rows = torch.arange(width), torch.arange(height)
    inside_x = (columns >= left[:, None]) & (columns < (left + w)[:, None])
    inside_y = (rows >= top[:, None]) & (rows < (top + h)[:, None])
    return inside_y[:, :, None] & inside_x[:, None, :], w * h / (height * width)


def random_erasing(x: Tensor, step: RandomErasing, random: torch.Generator) -> Tensor:
    """A rectangle of 0 in each chosen sample."""
    count = len(x)
    chosen = coin(count, step.p, random)
    area = uniform(count, *step.scale, random)
    ratio = torch.exp(uniform(count, math.log(step.ratio[0]), math.log(step.ratio[1]), random))
    mask, _ = rectangles(count, (x.shape[2], x.shape[3]), area, ratio, random)
    return x.masked_fill((mask & chosen[:, None, None])[:, None].to(x.device), 0.0)
