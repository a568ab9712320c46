"""Measurement of the range of image values, at intake."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.spec.value_range import LEAST_SHARE_OF_STANDARD, ValueRange, value_ranges

BLOCK_VALUES = 1 << 24
"""Values that are read at once from a memory-mapped file."""


def measure_value_ranges(images: NDArray[Any], channel_axis: int | None) -> tuple[ValueRange, ...]:
    """Return the range of each channel of all images (n, ...), as a network reads them: uint8 divided by 255.

    `channel_axis` None means a single channel.
    """
    channels = 1 if channel_axis is None else images.shape[channel_axis]
    low, high = np.full(channels, np.inf), np.full(channels, -np.inf)
    axes = tuple(axis for axis in range(images.ndim) if axis != channel_axis)
    rows = max(1, BLOCK_VALUES // max(1, images[:1].size))
    for start in range(0, len(images), rows):
        block = np.asarray(images[start : start + rows])
        if block.dtype.kind == "f" and not np.isfinite(block).all():
            block = np.where(np.isfinite(block), block, np.nan)
        low = np.fmin(low, np.fmin.reduce(block, axis=axes).astype(np.float64))
        high = np.fmax(high, np.fmax.reduce(block, axis=axes).astype(np.float64))
        # almost all files of pixels span most of 0..255: then the rest cannot change the answer
        if images.dtype == np.uint8 and (high - low >= LEAST_SHARE_OF_STANDARD * 255).all():
            break
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    return value_ranges([(a / scale, b / scale) for a, b in zip(low.tolist(), high.tolist(), strict=True)])
