"""Statistics of all images, computed on all cores: histograms, brightness, digests and perceptual hashes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data import process_pool
from trainkit.data.duplicates import digest, stack_digests

BLOCK_BYTES = 2 * 2**20
SINGLE_PROCESS_BYTES = 16 * 2**20
"""Smaller datasets are processed without worker processes."""
HASH_ROWS, HASH_COLUMNS = 8, 9


@dataclass(slots=True)
class ImageStatistics:
    """Statistics of n images with C channels."""

    histogram: NDArray[np.int64]
    """(256, C): count of each level."""
    means: NDArray[np.float32]
    """(n, C), in levels of 0..255."""
    flat: NDArray[np.bool_]
    """(n,): whether all pixels are equal."""
    digests: NDArray[np.uint64]
    """(n, 2)."""
    hashes: NDArray[np.uint64]
    """(n,) 64-bit difference hashes."""


def image_statistics(pixels: NDArray[np.uint8]) -> ImageStatistics:
    """Compute the statistics of uint8 (n, H, W, C) in blocks, so that memory does not depend on n."""
    row = max(1, pixels[0].nbytes)
    rows_per_block = max(1, BLOCK_BYTES // row)
    starts = range(0, len(pixels), rows_per_block)
    compute = _BlockStatistics(pixels, rows_per_block)
    blocks: dict[int, Any] = {}
    if pixels.nbytes < SINGLE_PROCESS_BYTES:
        blocks = {start: compute(start) for start in starts}
    else:
        for start, block in process_pool.run(compute, starts):
            blocks[start] = compute(start) if isinstance(block, process_pool.LostTask) else block
    ordered = [blocks[start] for start in starts]
    return ImageStatistics(
        sum(block[0] for block in ordered),
        np.concatenate([block[1] for block in ordered]),
        np.concatenate([block[2] for block in ordered]),
        stack_digests(block[3] for block in ordered),
        np.concatenate([block[4] for block in ordered]),
    )


class _BlockStatistics:
    def __init__(self, pixels: NDArray[np.uint8], step: int) -> None:
        self._pixels, self._step = pixels, step

    def __call__(self, start: int) -> tuple[Any, ...]:
        block = np.asarray(self._pixels[start : start + self._step])
        channels = block.shape[3]
        histogram = np.stack([np.bincount(block[..., c].ravel(), minlength=256) for c in range(channels)], axis=1)
        flat = block.reshape(len(block), -1)
        same = (flat == flat[:, :1]).all(1)
        marks = b"".join(digest(picture.data) for picture in np.ascontiguousarray(flat))
        grey = block.mean(3, dtype=np.float32) if channels > 1 else block[..., 0].astype(np.float32)
        means = block.mean((1, 2), dtype=np.float32)
        return histogram, means, same, marks, difference_hash(grey)


def difference_hash(grey: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return (n,) 64-bit difference hashes of images (n, H, W): each bit compares neighbours of 8 x 9 areas.

    Source: N. Krawetz, "Kind of Like That" (2013), https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
    """
    count, height, width = grey.shape
    across = (grey.reshape(count * height, width) @ _areas(HASH_COLUMNS, width).T).reshape(count, height, HASH_COLUMNS)
    small = np.matmul(_areas(HASH_ROWS, height), across)
    # a tenth of a level, so that equal areas do not differ by rounding
    bits = (small[:, :, 1:] - small[:, :, :-1] > 0.1).reshape(count, 64)
    return np.packbits(bits, axis=1).view(">u8").reshape(-1).astype(np.uint64)


def _areas(parts: int, length: int) -> NDArray[np.float32]:
    """Return (parts, length): each row averages its share of the pixels, with partial pixels at its edges."""
    edges = np.arange(parts + 1) * (length / parts)
    pixels = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shares = np.clip(overlap, 0, None)
    return np.asarray(shares / shares.sum(1, keepdims=True), np.float32)


def mean_differences(pixels: NDArray[np.uint8], a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean absolute difference of the pairs (pixels[a], pixels[b]), in levels of 0..255."""
    return np.concatenate([np.empty(0), *_block_differences(pixels, a, b)])


def _block_differences(
    pixels: NDArray[np.uint8], a: NDArray[np.int64], b: NDArray[np.int64]
) -> Iterator[NDArray[np.float64]]:
    step = max(1, BLOCK_BYTES // max(1, pixels[0].nbytes))
    for start in range(0, len(a), step):
        left, right = pixels[a[start : start + step]], pixels[b[start : start + step]]
        apart = np.maximum(left, right) - np.minimum(left, right)
        yield apart.reshape(len(apart), -1).mean(1, dtype=np.float64)
