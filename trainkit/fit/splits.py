"""The parts of the data as the loop uses them: resident tensors, taken by row numbers, no loader between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.fit.encode import Encoded, as_float
from trainkit.fit.preprocessing import Preprocessing

FLOAT_BYTES = 1 << 30
"""Inputs whose float form is at most this large are converted once; larger images stay uint8 until their batch."""


@dataclass
class Part:
    """One part, resident on a device. `x` is ready for the network, or raw when `pending` is set."""

    name: Literal["train", "val", "test", "target"]
    x: Tensor
    lengths: Tensor | None
    targets: Tensor
    """(n,) int64 class indices, or (n, k) float32 scaled values."""
    truth: NDArray[Any]
    """The same in the user's units: class indices, or (n, k) float64."""
    pending: bool
    """Whether preprocessing is still to be applied to a batch."""
    index: NDArray[np.int64]
    """(n,) the samples' row numbers in the dataset."""

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Inputs (B, ...) as float and true lengths of the given rows; preprocessing is the caller's when pending."""
        lengths = None if self.lengths is None else self.lengths[rows.cpu()]
        return as_float(self.x[rows]), lengths


def make_part(
    name: Literal["train", "val", "test", "target"],
    encoded: Encoded,
    targets: Tensor,
    truth: NDArray[Any],
    index: NDArray[np.int64],
    preprocessing: Preprocessing,
    *,
    augmented: bool,
    device: torch.device,
) -> Part:
    """Move inputs to `device`; preprocess them once where no augmentation stands before it and the floats fit."""
    floats = encoded.x.numel() * 4
    once = not augmented and floats <= FLOAT_BYTES
    x = preprocessing.apply_all(encoded.x) if once else encoded.x
    if not bool(np.isfinite(truth).all()):
        raise ValueError(f"the targets of the {name} part hold values that are not finite")
    return Part(name, x.to(device), encoded.lengths, targets.to(device), truth, pending=not once, index=index)
