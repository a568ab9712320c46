"""The scale on which every step works: [0, 1] is the range of the values of each channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainkit.spec.value_range import UNIT, ValueRange


class UnitScale:
    """Images (B, C, H, W) to [0, 1] and back, u = (x - low) / (high - low) for each channel, with their dtype.

    Steps that work on u do to a x + b (a > 0, range a low + b .. a high + b) what they do to x.
    """

    def __init__(self, x: Tensor, ranges: Sequence[ValueRange] | None) -> None:
        """Raises ValueError for ranges that do not fit the channels, and for whole numbers of unknown range."""
        channels = x.shape[1]
        self._dtype = x.dtype
        self._whole = not x.is_floating_point()
        if ranges is None and self._whole and x.dtype != torch.uint8:
            raise ValueError(f"the range of {x.dtype} images is unknown: give `value_ranges`, as in [[0, 4095]]")
        ranges = ranges or ([(0.0, 255.0)] if self._whole else [UNIT])
        if len(ranges) not in (1, channels):
            raise ValueError(f"{len(ranges)} value ranges were given for images of {channels} channels")
        self.ranges = tuple(ranges) if len(ranges) == channels else tuple(ranges) * channels
        self._identity = not self._whole and set(self.ranges) == {UNIT}
        if not self._identity:
            bounds = torch.tensor(self.ranges, dtype=torch.float64).T[:, None, :, None, None]
            dtype = torch.float32 if self._whole else x.dtype
            self._low: Tensor = bounds[0].to(x.device, dtype)
            self._high: Tensor = bounds[1].to(x.device, dtype)
            self._width: Tensor = self._high - self._low

    def to_unit(self, x: Tensor) -> Tensor:
        """u; a channel with a single value becomes 0."""
        if self._identity:
            return x
        return (x.to(self._low.dtype) - self._low) / torch.where(self._width > 0, self._width, 1)

    def from_unit(self, u: Tensor) -> Tensor:
        """x, of the dtype of the images; never outside the range."""
        if self._identity:
            return u
        x = torch.minimum(torch.maximum(self._low + self._width * u, self._low), self._high)
        return x.round().to(self._dtype) if self._whole else x
