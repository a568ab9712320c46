"""Steps that treat each value alone: zero_mean, min_max and z_score are all y = (x - shift) * scale + offset."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.preprocess.moments import Axes, extremes, mean_and_std, reduced_axes
from trainkit.spec.preprocess import MinMax, ZeroMean, ZScore

EPS = 1e-8


@dataclass(frozen=True, slots=True)
class Elementwise:
    """A fitted step; `shift`, `scale`, `offset` are float64 and broadcast against one sample."""

    kind: str
    shift: NDArray[np.float64]
    scale: NDArray[np.float64]
    offset: float = 0.0
    sent: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor, Tensor]] = field(
        default_factory=dict, repr=False
    )

    def transform(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, ...) float64 to the same shape."""
        return (x - self.shift) * self.scale + self.offset

    def inverse(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """What transform was given; constant columns come back as their constant."""
        back: NDArray[np.float64] = (y - self.offset) / self.scale + self.shift
        return back

    def transform_tensor(self, x: Tensor) -> Tensor:
        """The same on x's device and in x's type."""
        shift, scale, constant = self._tensors(x.device, x.dtype)
        return (x - shift) * scale + constant

    def _tensors(self, device: torch.device, kind: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Shift, scale and constant on the device, sent there once and not with every batch.

        Next to a large offset x - shift is exact, but the shift itself was rounded: the constant takes that back.
        """
        if (device, kind) not in self.sent:
            with torch.inference_mode(False):  # tensors made in inference mode could never be differentiated through
                shift, scale = torch.from_numpy(self.shift), torch.from_numpy(self.scale)
                constant = self.offset - (shift - shift.to(kind).double()) * scale
                self.sent[device, kind] = (
                    shift.to(kind).to(device),
                    scale.to(kind).to(device),
                    constant.to(kind).to(device),
                )
        return self.sent[device, kind]

    def rounding(self, noise: NDArray[np.float64]) -> NDArray[np.float64]:
        """Variance of the outputs' rounding, given that of the inputs', both in one sample's shape."""
        out: NDArray[np.float64] = noise * self.scale**2
        return out

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape stays."""
        return shape

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """JSON-able description, and arrays."""
        return {"kind": self.kind, "offset": self.offset}, {"shift": self.shift, "scale": self.scale}


def fit_zero_mean(step: ZeroMean, x: NDArray[Any]) -> Elementwise:
    """x - mean(train)."""
    mean, _ = mean_and_std(x, reduced_axes(step.per, x.ndim))
    return Elementwise("zero_mean", mean, np.ones_like(mean))


def fit_z_score(step: ZScore, x: NDArray[Any], indicators: NDArray[np.bool_] | None = None) -> Elementwise:
    """(x - mean) / (std + 1e-8), population deviation (ddof 0); a constant column is only shifted.

    `indicators` (d,), the one-hot columns, stay 0 and 1 where each column has a mean of its own: divided by its
    deviation, the column of a rare category would be large in its few rows, sqrt(n) for a single one.
    """
    mean, std = mean_and_std(x, reduced_axes(step.per, x.ndim))
    scale = 1 / _divisor(std, mean)
    if indicators is not None and mean.shape == indicators.shape:
        mean, scale = np.where(indicators, 0.0, mean), np.where(indicators, 1.0, scale)
    return Elementwise("z_score", mean, scale)


def fit_min_max(step: MinMax, x: NDArray[Any]) -> Elementwise:
    """low + (x - min) / (max - min + 1e-8) * (high - low); a constant column is only shifted."""
    axes: Axes = reduced_axes(step.per, x.ndim)
    least, most = extremes(x, axes)
    low, high = step.range
    return Elementwise("min_max", least, (high - low) / _divisor(most - least, least), low)


def _divisor(spread: NDArray[np.float64], size: NDArray[np.float64]) -> NDArray[np.float64]:
    """spread + 1e-8; 1 where it is nothing but rounding: 1e-8 would blow up what held-out samples have there."""
    constant = spread <= 10 * np.finfo(np.float64).eps * np.abs(size)
    return np.where(constant, 1.0, spread + EPS)
