"""Policies: operations drawn per sample from one list, applied to the whole batch under masks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainkit.augment import colour, geometry

Operation = Callable[[Tensor, Tensor], Tensor]
"""(images, signed strengths in [-1, 1], one a sample) -> images."""


def _affine(make: Callable[[Tensor, tuple[int, int]], Tensor]) -> Operation:
    return lambda x, s: geometry.resample(x, make(s, (x.shape[2], x.shape[3])))


def _solarize(x: Tensor, strength: Tensor) -> Tensor:
    limit = (1 - strength.abs()).to(x.device, x.dtype)[:, None, None, None]
    return torch.where(x > limit, 1 - x, x)


def _posterize(x: Tensor, strength: Tensor) -> Tensor:
    """Clear up to four low bits of the 8-bit value; strengths that clear none leave the image as it is."""
    size = (2 ** (strength.abs() * 4).round()).to(x.device, x.dtype)[:, None, None, None]
    return torch.where(size > 1, ((x * 255).round() / size).floor() * size / 255, x)


OPERATIONS: tuple[Operation, ...] = (
    lambda x, s: x,
    _affine(lambda s, _: geometry.rotation(s * 0.5236)),  # 30 degrees
    _affine(lambda s, _: geometry.shear(s * 0.3)),
    _affine(lambda s, size: geometry.translation(s * 0.3 * size[1], torch.zeros_like(s))),
    _affine(lambda s, size: geometry.translation(torch.zeros_like(s), s * 0.3 * size[0])),
    lambda x, s: colour.brightness(x, 1 + 0.9 * s),
    lambda x, s: colour.contrast(x, 1 + 0.9 * s),
    _solarize,
    _posterize,
)
COLOUR_OPERATIONS: tuple[Operation, ...] = (lambda x, s: colour.saturation(x, 1 + 0.9 * s),)


def apply_policy(x: Tensor, ops: int, magnitude: float | None, random: torch.Generator, colour_image: bool) -> Tensor:
    """Apply `ops` operations to each sample, at `magnitude` with a random sign, or (None) at a random strength."""
    known = OPERATIONS + (COLOUR_OPERATIONS if colour_image else ())
    for _ in range(ops):
        chosen = torch.randint(0, len(known), (len(x),), generator=random)
        strength = torch.rand(len(x), generator=random) if magnitude is None else torch.full((len(x),), magnitude)
        strength = strength * (torch.randint(0, 2, (len(x),), generator=random) * 2 - 1)
        out = x.clone()
        for index, operation in enumerate(known):
            rows = (chosen == index).nonzero()[:, 0]
            if len(rows) and index:
                out[rows.to(x.device)] = operation(x[rows.to(x.device)], strength[rows])
        x = out
    return x
