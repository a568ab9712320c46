"""Eigenvectors of the covariance of rows (n, d), by falling eigenvalue, each with its largest entry positive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.preprocess.moments import covariance, extremes, mean_and_std

MOST_FEATURES = 20_000


@dataclass(frozen=True, slots=True)
class Spectrum:
    """`values` (r,) fall; `vectors` (r, d) are orthonormal rows; r = min(n, d)."""

    mean: NDArray[np.float64]
    values: NDArray[np.float64]
    vectors: NDArray[np.float64]
    noise: NDArray[np.float64]
    """(r,) variance that rounding of the input itself can put into each direction."""

    @property
    def signal(self) -> NDArray[np.int64]:
        """Directions above rounding noise: eigenvalues above d * machine epsilon * the largest, and above their noise."""
        floor = self.vectors.shape[1] * np.finfo(np.float64).eps * self.values.max(initial=0.0)
        return np.flatnonzero(self.values > np.maximum(floor, self.noise))

    @property
    def ratio(self) -> NDArray[np.float64]:
        """Explained variance ratio; all 0 when nothing varies."""
        total = self.values.sum()
        return self.values / total if total > 0 else np.zeros_like(self.values)


def spectrum(x: NDArray[Any], solver: Literal["eigh", "svd"], noise: NDArray[np.float64]) -> Spectrum:
    """Of the centred rows. With more features than samples the thin SVD serves both solvers: it needs no d x d matrix.

    `noise` (d,) is the variance of each feature's rounding (see `rounding`). Raises ValueError for more than 20,000
    features and as many samples.
    """
    n, d = x.shape
    mean, _ = mean_and_std(x, (0,))
    if solver == "svd" or d > n:
        centred = np.asarray(x, np.float64) - mean
        _, singular, rows = np.linalg.svd(centred, full_matrices=False)
        return Spectrum(mean, singular**2 / max(1, n - 1), _signed(rows), rows**2 @ noise)
    if d > MOST_FEATURES:
        raise ValueError(f"{d} features are too many for a {d} x {d} covariance; at most {MOST_FEATURES}")
    values, columns = np.linalg.eigh(covariance(x, mean))
    rows = columns[:, ::-1].T
    return Spectrum(mean, np.clip(values[::-1], 0, None), _signed(rows), rows**2 @ noise)


def rounding(x: NDArray[Any]) -> NDArray[np.float64]:
    """(machine epsilon * largest entry)^2 of each feature of a float32 input (n, ...), in one sample's shape.

    Float64 arithmetic cannot tell that rounding from signal. Each feature has its own: the rounding of one in the
    millions must not hide another of a few hundredths. Float64 inputs and constant features have none.
    """
    if x.dtype.kind != "f" or x.dtype == np.float64:
        return np.zeros(x.shape[1:])
    least, most = extremes(x, (0,))
    error = np.finfo(x.dtype).eps * np.maximum(np.abs(least), np.abs(most))
    return np.where(most > least, error**2, 0.0)


def _signed(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = np.abs(rows).argmax(axis=1)
    signs = np.sign(rows[np.arange(len(rows)), largest])
    signs[signs == 0] = 1
    return np.ascontiguousarray(rows * signs[:, None])
