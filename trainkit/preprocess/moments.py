"""Means, deviations, extremes and covariances in float64, a chunk at a time, centred before they are squared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Axes = tuple[int, ...]
CHUNK_VALUES = 1 << 22


def reduced_axes(per: str, ndim: int) -> Axes:
    """Axes that share one statistic: all but the channel for images (n, C, H, W), the samples alone otherwise."""
    if ndim == 4 and per in ("auto", "channel"):
        return (0, 2, 3)
    return (0,)


def chunks(x: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    """Blocks of samples as float64."""
    rows = max(1, CHUNK_VALUES // max(1, int(np.prod(x.shape[1:]))))
    for start in range(0, len(x), rows):
        yield np.asarray(x[start : start + rows], np.float64)


def mean_and_std(x: NDArray[Any], axes: Axes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and population deviation, shaped to broadcast against one sample.

    Two passes: the squares are of centred values, so a large common offset costs no digits.
    """
    count = x.size // max(1, int(np.prod([side for axis, side in enumerate(x.shape) if axis not in axes])))
    first = np.asarray(x[:1], np.float64).mean(axis=axes, keepdims=True)[0]
    # sums of differences from the first sample: the running sum stays small next to a large offset
    mean = first + sum((block - first).sum(axis=axes, keepdims=True)[0] for block in chunks(x)) / count
    squares = sum(((block - mean) ** 2).sum(axis=axes, keepdims=True)[0] for block in chunks(x))
    return np.asarray(mean), np.asarray(np.sqrt(squares / count))


def extremes(x: NDArray[Any], axes: Axes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Minimum and maximum, shaped to broadcast against one sample."""
    blocks = [(b.min(axis=axes, keepdims=True)[0], b.max(axis=axes, keepdims=True)[0]) for b in chunks(x)]
    return np.min([low for low, _ in blocks], axis=0), np.max([high for _, high in blocks], axis=0)


def covariance(x: NDArray[Any], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """(d, d) with ddof 1, of rows (n, d)."""
    total = np.zeros((x.shape[1], x.shape[1]))
    for block in chunks(x):
        centred = block - mean
        total += centred.T @ centred
    return total / max(1, len(x) - 1)
