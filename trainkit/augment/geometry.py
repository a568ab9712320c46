"""Geometric steps: neighbouring ones are composed into one affine map a sample, and the batch is resampled once.

Maps take output coordinates to input coordinates, in pixels from the image's centre, x to the right, y down.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainkit.augment.seeding import coin, uniform
from trainkit.spec.augment import (
    HorizontalFlip,
    RandomResizedCrop,
    Rotate,
    Scale,
    Shear,
    Translate,
    VerticalFlip,
)

AFFINE = (Rotate, Translate, Scale, Shear, RandomResizedCrop)
FLIPS = (HorizontalFlip, VerticalFlip)


def draw(step: Any, count: int, size: tuple[int, int], random: torch.Generator) -> Tensor:
    """(count, 2, 3) maps of one step for images of `size` (H, W)."""
    height, width = size
    match step:
        case Rotate(degrees=degrees):
            return rotation(uniform(count, -degrees, degrees, random) * (math.pi / 180))
        case Translate(fraction=fraction):
            dx = uniform(count, -fraction, fraction, random) * width
            return translation(dx, uniform(count, -fraction, fraction, random) * height)
        case Scale(range=(low, high)):
            inverse = 1 / uniform(count, low, high, random)
            return stretch(inverse, inverse)
        case Shear(degrees=degrees):
            return shear(torch.tan(uniform(count, -degrees, degrees, random) * (math.pi / 180)))
        case RandomResizedCrop():
            return _window(step, count, size, random)
        case HorizontalFlip(p=p):
            sign = 1 - 2 * coin(count, p, random).float()
            return stretch(sign, torch.ones_like(sign))
        case VerticalFlip(p=p):
            sign = 1 - 2 * coin(count, p, random).float()
            return stretch(torch.ones_like(sign), sign)
    raise TypeError(f"{step.kind} is no affine step")


def _window(step: RandomResizedCrop, count: int, size: tuple[int, int], random: torch.Generator) -> Tensor:
    height, width = size
    area = uniform(count, *step.scale, random)
    ratio = torch.exp(uniform(count, math.log(step.ratio[0]), math.log(step.ratio[1]), random))
    w, h = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    dx = uniform(count, -0.5, 0.5, random) * (1 - w) * width
    dy = uniform(count, -0.5, 0.5, random) * (1 - h) * height
    return compose(translation(-dx, -dy), stretch(w, h))


def rotation(angle: Tensor) -> Tensor:
    """Turn the picture counter-clockwise by `angle` (radians)."""
    cosine, sine, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    return torch.stack([cosine, -sine, zero, sine, cosine, zero], 1).reshape(-1, 2, 3)


def translation(dx: Tensor, dy: Tensor) -> Tensor:
    """Move the picture dx pixels right and dy down."""
    one, zero = torch.ones_like(dx), torch.zeros_like(dx)
    return torch.stack([one, zero, -dx, zero, one, -dy], 1).reshape(-1, 2, 3)


def stretch(x: Tensor, y: Tensor) -> Tensor:
    """See x times the width and y times the height: below 1 zooms in."""
    zero = torch.zeros_like(x)
    return torch.stack([x, zero, zero, zero, y, zero], 1).reshape(-1, 2, 3)


def shear(slope: Tensor) -> Tensor:
    """x moves by slope * y."""
    one, zero = torch.ones_like(slope), torch.zeros_like(slope)
    return torch.stack([one, slope, zero, zero, one, zero], 1).reshape(-1, 2, 3)


def compose(first: Tensor, then: Tensor) -> Tensor:
    """The map of doing `first` to the picture and `then` to what comes out: first(then(output coordinates))."""
    linear = first[:, :, :2] @ then[:, :, :2]
    offset = (first[:, :, :2] @ then[:, :, 2:]) + first[:, :, 2:]
    return torch.cat([linear, offset], 2)


def resample(x: Tensor, maps: Tensor) -> Tensor:
    """Bilinear; what lies outside the image is 0."""
    height, width = x.shape[2:]
    # from pixels to grid_sample's coordinates, in which each side runs from -1 to 1
    to_pixels = torch.tensor([width / 2, height / 2])
    theta = maps.clone()
    theta[:, :, :2] = maps[:, :, :2] * to_pixels[None, None, :] / to_pixels[None, :, None]
    theta[:, :, 2] = maps[:, :, 2] / to_pixels[None, :]
    theta = theta.to(x.device, x.dtype)
    across = (torch.arange(width, device=x.device, dtype=x.dtype) * 2 + 1) / width - 1
    down = (torch.arange(height, device=x.device, dtype=x.dtype) * 2 + 1) / height - 1
    # affine_grid multiplies matrices of three columns, which on the CPU takes longer than the sampling itself
    columns = theta[:, None, None, :, 0] * across[:, None]
    rows = theta[:, None, None, :, 1] * down[:, None, None] + theta[:, None, None, :, 2]
    return F.grid_sample(x, columns + rows, mode="bilinear", padding_mode="zeros", align_corners=False)


def flip(step: Any, x: Tensor, random: torch.Generator) -> Tensor:
    """Mirror each sample with its probability."""
    chosen = coin(len(x), step.p, random).to(x.device)
    axis = 3 if isinstance(step, HorizontalFlip) else 2
    return torch.where(chosen[:, None, None, None], x.flip(axis), x)


def crop(x: Tensor, padding: int, random: torch.Generator) -> Tensor:
    """Pad with zeros and cut a window of the original size at a random place of each sample."""
    count, _, height, width = x.shape
    top, left = torch.randint(0, 2 * padding + 1, (2, count), generator=random).to(x.device)
    # Every window as a view; one index copies the chosen ones, row by row, faster than a gather of single pixels.
    windows = F.pad(x, (padding, padding, padding, padding)).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=x.device), :, top, left]
