"""Steps that mix features: y = (x - mean) M, with a matrix for the way back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.preprocess.moments import covariance, extremes, mean_and_std
from trainkit.spec.preprocess import Pca, Whiten

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


@dataclass(frozen=True, slots=True)
class Projection:
    """A fitted pca or whiten. `matrix` (d, k) and `back` (k, d) are float32, `mean` (d,) float64."""

    kind: str
    mean: NDArray[np.float64]
    matrix: NDArray[np.float32]
    back: NDArray[np.float32]
    keeps_shape: bool
    """zca: the output has the input's axes, so images stay images."""
    explained_variance_ratio: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    sent: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor, Tensor]] = field(
        default_factory=dict, repr=False
    )

    def transform(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, ...) float64, flattened to (n, d), to (n, k), or back to its shape for zca."""
        out = (x.reshape(len(x), -1) - self.mean) @ self.matrix.astype(np.float64)
        return out.reshape(x.shape) if self.keeps_shape else out

    def inverse(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """The nearest x (dropped directions come back as the mean), flat unless the step keeps shapes."""
        out = y.reshape(len(y), -1) @ self.back.astype(np.float64) + self.mean
        return out.reshape(y.shape) if self.keeps_shape else out

    def transform_tensor(self, x: Tensor) -> Tensor:
        """The same on x's device and in x's type."""
        mean, matrix, constant = self._tensors(x.device, x.dtype)
        out = torch.addmm(constant, x.flatten(1) - mean, matrix)
        return out.reshape(x.shape) if self.keeps_shape else out

    def _tensors(self, device: torch.device, kind: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, matrix and constant on the device, sent there once and not with every batch.

        Next to a large offset x - mean is exact, but the mean itself was rounded: the constant takes that back.
        """
        if (device, kind) not in self.sent:
            with torch.inference_mode(False):  # tensors made in inference mode could never be differentiated through
                mean, matrix = torch.from_numpy(self.mean), torch.from_numpy(self.matrix)
                constant = -(mean - mean.to(kind).double()) @ matrix.double()
                self.sent[device, kind] = (
                    mean.to(kind).to(device),
                    matrix.to(device, kind),
                    constant.to(kind).to(device),
                )
        return self.sent[device, kind]

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(k,), or the input's for zca."""
        return shape if self.keeps_shape else (self.matrix.shape[1],)

    def rounding(self, noise: NDArray[np.float64]) -> NDArray[np.float64]:
        """Variance of the outputs' rounding, given that of the inputs', both in one sample's shape."""
        out: NDArray[np.float64] = noise.reshape(-1) @ np.square(self.matrix, dtype=np.float64)
        return out.reshape(noise.shape) if self.keeps_shape else out

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """JSON-able description, and arrays."""
        ratio = self.explained_variance_ratio
        arrays: dict[str, NDArray[Any]] = {"mean": self.mean, "matrix": self.matrix, "back": self.back, "ratio": ratio}
        return {"kind": self.kind, "keeps_shape": self.keeps_shape}, arrays


def fit_pca(step: Pca, x: NDArray[Any], noise: NDArray[np.float64]) -> Projection:
    """Leading eigenvectors of the covariance (ddof 1).

    An int keeps that many; a fraction keeps as many as it takes to exceed that share of the variance, 1.0 all that
    are more than rounding; all keeps min(n, d). `noise` is the variance of each feature's rounding. Raises ValueError
    when more components are wanted than there are.
    """
    flat = x.reshape(len(x), -1)
    found = spectrum(flat, step.solver, noise.reshape(-1))
    kept = _kept(step, found)
    if len(kept) > len(found.values):
        raise ValueError(f"{len(kept)} components of {flat.shape[1]} features and {len(flat)} samples")
    vectors = found.vectors[kept]
    return Projection("pca", found.mean, _float32(vectors.T), _float32(vectors), False, found.ratio[kept])


def _kept(step: Pca, found: Spectrum) -> NDArray[np.int64]:
    if step.components == "all":
        return np.arange(len(found.values))
    if isinstance(step.components, int):
        return np.arange(step.components)
    if step.components == 1.0:
        return found.signal if len(found.signal) else np.arange(1)
    count = int(np.searchsorted(np.cumsum(found.ratio), step.components, side="right")) + 1
    return np.arange(min(len(found.values), count))


def fit_whiten(step: Whiten, x: NDArray[Any], noise: NDArray[np.float64]) -> Projection:
    """U diag(1/sqrt(lambda + eps)) U^T (zca), or without the last U^T (pca).

    Directions whose eigenvalue is rounding noise are dropped (the pseudo-inverse's rule), never amplified. `noise` is
    the variance of each feature's rounding.
    """
    found = spectrum(x.reshape(len(x), -1), step.solver, noise.reshape(-1))
    kept = found.signal if len(found.signal) else np.arange(1)
    vectors = found.vectors[kept]
    spread = np.sqrt(found.values[kept] + step.eps)
    # nothing varies at all: there is no direction to scale
    shrink = 1 / spread if len(found.signal) else np.zeros_like(spread)
    forward, back = vectors.T * shrink, spread[:, None] * vectors
    if step.method == "zca":
        forward, back = forward @ vectors, vectors.T @ back
    keeps = step.method == "zca" and x.ndim > 2
    return Projection("whiten", found.mean, _float32(forward), _float32(back), keeps, found.ratio[kept])


def _float32(matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.ascontiguousarray(matrix, np.float32)
