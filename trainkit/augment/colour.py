"""Colour steps with one factor or shift for each sample, factors as in torchvision; values stay in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

GREY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in a grey value, as in torchvision."""


def grey(x: Tensor) -> Tensor:
    """(B, 1, H, W)."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    weights = torch.tensor(GREY, device=x.device, dtype=x.dtype)
    return (x * weights[None, :, None, None]).sum(1, keepdim=True)


def blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """factor * x + (1 - factor) * other, clipped."""
    share = factor.to(x.device, x.dtype)[:, None, None, None]
    return (share * x + (1 - share) * other).clamp(0, 1)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """factor * x."""
    return blend(x, torch.zeros_like(x[:1, :1, :1, :1]), factor)


def shift_brightness(x: Tensor, shift: Tensor) -> Tensor:
    """x + shift, clipped; the same number for all channels."""
    return (x + shift.to(x.device, x.dtype)[:, None, None, None]).clamp(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the sample's own mean grey."""
    return blend(x, grey(x).mean((2, 3), keepdim=True), factor)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image; x has three channels."""
    return blend(x, grey(x), factor)


def shift_saturation(x: Tensor, shift: Tensor) -> Tensor:
    """S + shift within [0, 1] in HSV; pixels without colour have no hue to show, and stay. x has three channels."""
    h, s, v = _to_hsv(x)
    shifted = (s + shift.to(x.device, x.dtype)[:, None, None]).clamp(0, 1)
    return _to_rgb(h, torch.where(s > 0, shifted, s), v)


def hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by a fraction of the circle; x has three channels."""
    h, s, v = _to_hsv(x)
    return _to_rgb((h + turn.to(x.device, x.dtype)[:, None, None]) % 1.0, s, v)


def scale_hue(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply the hue, red being 0, and go round the circle; x has three channels."""
    h, s, v = _to_hsv(x)
    return _to_rgb((h * factor.to(x.device, x.dtype)[:, None, None]) % 1.0, s, v)


def _to_hsv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r, g, b = x.unbind(1)
    most, least = x.amax(1), x.amin(1)
    spread = most - least
    flat = spread == 0
    safe = torch.where(flat, torch.ones_like(spread), spread)
    rc, gc, bc = (most - r) / safe, (most - g) / safe, (most - b) / safe
    h = torch.where(most == r, bc - gc, torch.where(most == g, 2 + rc - bc, 4 + gc - rc))
    h = torch.where(flat, torch.zeros_like(h), (h / 6) % 1.0)
    s = torch.where(flat, torch.zeros_like(spread), spread / torch.where(most == 0, torch.ones_like(most), most))
    return h, s, most


def _to_rgb(h: Tensor, s: Tensor, v: Tensor) -> Tensor:
    sector = torch.floor(h * 6)
    f = h * 6 - sector
    p, q, t = v * (1 - s), v * (1 - s * f), v * (1 - s * (1 - f))
    index = (sector.long() % 6)[:, None]
    red = torch.stack([v, q, p, p, t, v], 1).gather(1, index)
    green = torch.stack([t, v, v, q, p, p], 1).gather(1, index)
    blue = torch.stack([p, p, t, v, v, q], 1).gather(1, index)
    return torch.cat([red, green, blue], 1).clamp(0, 1)
