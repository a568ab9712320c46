"""Eigenvectors of the covariance of rows (n, d), by falling eigenvalue, each with its largest entry positive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.preprocess.moments import covariance, mean_and_std

MOST_FEATURES = 20_000


@dataclass(frozen=True, slots=True)
class Spectrum:
    """`values` (r,) fall; `vectors` (r, d) are orthonormal rows; r = min(n, d)."""

    mean: NDArray[np.float64]
    values: NDArray[np.float64]
    vectors: NDArray[np.float64]
    noise: float
    """Variance that rounding of the input itself can put into a direction."""

    @property
    def rank(self) -> int:
        """Directions above rounding noise: eigenvalues above d * machine epsilon * the largest, and above the input's."""
        floor = self.vectors.shape[1] * np.finfo(np.float64).eps * self.values.max(initial=0.0)
        return int((self.values > max(floor, self.noise)).sum())

    @property
    def ratio(self) -> NDArray[np.float64]:
        """Explained variance ratio; all 0 when nothing varies."""
        total = self.values.sum()
        return self.values / total if total > 0 else np.zeros_like(self.values)


def spectrum(x: NDArray[Any], solver: Literal["eigh", "svd"]) -> Spectrum:
    """Of the centred rows. With more features than samples the thin SVD serves both solvers: it needs no d x d matrix.

    Raises ValueError for more than 20,000 features and as many samples.
    """
    n, d = x.shape
    mean, _ = mean_and_std(x, (0,))
    noise = _input_noise(x)
    if solver == "svd" or d > n:
        centred = np.asarray(x, np.float64) - mean
        _, singular, rows = np.linalg.svd(centred, full_matrices=False)
        return Spectrum(mean, singular**2 / max(1, n - 1), _signed(rows), noise)
    if d > MOST_FEATURES:
        raise ValueError(f"{d} features are too many for a {d} x {d} covariance; at most {MOST_FEATURES}")
    values, columns = np.linalg.eigh(covariance(x, mean))
    return Spectrum(mean, np.clip(values[::-1], 0, None), _signed(columns[:, ::-1].T), noise)


def _input_noise(x: NDArray[Any]) -> float:
    """(machine epsilon * largest entry)^2 of a float32 input: float64 arithmetic cannot tell its rounding from signal."""
    if x.dtype.kind != "f" or x.dtype == np.float64:
        return 0.0
    return float(np.finfo(x.dtype).eps * max(abs(float(x.min())), abs(float(x.max())))) ** 2


def _signed(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = np.abs(rows).argmax(axis=1)
    signs = np.sign(rows[np.arange(len(rows)), largest])
    signs[signs == 0] = 1
    return np.ascontiguousarray(rows * signs[:, None])
