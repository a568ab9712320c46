"""Normalisation layers by name, for vectors (B, C) and images (B, C, H, W)."""

from __future__ import annotations

import math

from torch import nn

from trainkit.spec.models import Norm

GROUPS = 8
"""Wanted number of groups; a width it does not divide gets the greatest common divisor."""


def build_norm(kind: Norm, channels: int, *, image: bool) -> nn.Module | None:
    """The layer, or None for `none`. `layer` on images normalises a whole sample, with scale and shift per channel."""
    if kind == "batch":
        return nn.BatchNorm2d(channels) if image else nn.BatchNorm1d(channels)
    if kind == "layer":
        return nn.GroupNorm(1, channels) if image else nn.LayerNorm(channels)
    if kind == "group":
        return nn.GroupNorm(math.gcd(channels, GROUPS), channels)
    return None
