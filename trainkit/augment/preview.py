"""Variants of one image for a contact sheet: what the network will see in different epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from trainkit.augment.augmenter import build


def variants(image: Tensor, steps: Sequence[Any], count: int = 20, seed: int = 0) -> Tensor:
    """(count, C, H, W) augmented copies of an image (C, H, W) with values in [0, 1]."""
    return build(steps).apply(image.expand(count, *image.shape).clone(), seed=seed, epoch=1, step=0)[0]
