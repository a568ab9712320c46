"""An ordered list of steps: fitted one behind the other on the training part, applied to all, saved as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from trainkit.preprocess.elementwise import Elementwise, fit_min_max, fit_z_score, fit_zero_mean
from trainkit.preprocess.moments import chunks
from trainkit.preprocess.projection import Projection, fit_pca, fit_whiten, rounding
from trainkit.spec.preprocess import MinMax, Pca, PreprocessStep, Whiten, ZeroMean, ZScore

Array = TypeVar("Array", NDArray[Any], Tensor)
Fitted = Elementwise | Projection
_STEPS: TypeAdapter[Any] = TypeAdapter(list[PreprocessStep])


class Pipeline:
    """Steps for (n, d), or images (n, C, H, W) with values in [0, 1].

    `impute` steps belong to the table encoder, which sees columns before they become numbers; they are left out here.
    """

    def __init__(self, steps: Sequence[Any], fitted: Sequence[Fitted] = ()) -> None:
        self.steps = [step for step in steps if step.kind != "impute"]
        self.fitted = list(fitted)

    def fit(self, x: Any, indicators: NDArray[np.bool_] | None = None) -> Pipeline:
        """Fit every step on what the steps before it make of x. Raises ValueError for values that are not finite.

        `indicators` (d,): which columns of x are one-hot; a z_score leaves them as they are.
        """
        current = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
        if current.ndim < 2 or len(current) == 0:
            raise ValueError(f"preprocessing is fitted on samples (n, d) or (n, C, H, W), not {current.shape}")
        if not np.isfinite(current).all():
            raise ValueError("preprocessing cannot be fitted on NaN or infinity")
        self.fitted = []
        mixes = any(isinstance(step, Pca | Whiten) for step in self.steps)
        # What rounding the input brought along cannot be told from the values once a step has moved them.
        noise = rounding(current) if mixes else np.zeros(current.shape[1:])
        for position, step in enumerate(self.steps):
            fitted = _fit(step, current, noise, indicators)
            if isinstance(fitted, Projection):
                indicators = None  # its outputs mix the columns
            self.fitted.append(fitted)
            if position + 1 < len(self.steps):
                kind = current.dtype if current.dtype.kind == "f" else np.float32
                current = np.concatenate([fitted.transform(block).astype(kind) for block in chunks(current)])
                if mixes:
                    noise = fitted.rounding(noise) + rounding(current)
        return self

    def transform(self, x: Array) -> Array:
        """Apply the fitted steps; NumPy gives NumPy (float64 stays, all else float32), a tensor a tensor.

        Raises ValueError before `fit`.
        """
        self._need_fit()
        if isinstance(x, Tensor):
            out = x if x.is_floating_point() else x.to(torch.float32)
            for step in self.fitted:
                out = step.transform_tensor(out)
            return out
        kind = np.float64 if x.dtype == np.float64 else np.float32
        values = np.asarray(x, np.float64)
        for step in self.fitted:
            values = step.transform(values)
        result: NDArray[Any] = values.astype(kind)
        return result

    def inverse_transform(self, y: Array) -> Array:
        """Back through the steps, last first, in y's type; after a pca the samples come back flat.

        Raises ValueError before `fit`.
        """
        self._need_fit()
        if isinstance(y, Tensor):
            kind = y.dtype if y.is_floating_point() else torch.float32
            return torch.from_numpy(self.inverse_transform(y.detach().cpu().double().numpy())).to(kind).to(y.device)
        values = np.asarray(y, np.float64)
        for step in reversed(self.fitted):
            values = step.inverse(values)
        result: NDArray[Any] = values.astype(np.float64 if y.dtype == np.float64 else np.float32)
        return result

    def _need_fit(self) -> None:
        if len(self.fitted) != len(self.steps):
            raise ValueError("this pipeline has not been fitted yet: call fit on the training part first")

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one sample after all steps."""
        for step in self.fitted:
            shape = step.output_shape(shape)
        return shape

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """JSON-able description, and arrays by name; no pickle."""
        described, arrays = [], {}
        for index, step in enumerate(self.fitted):
            description, step_arrays = step.state()
            described.append(description)
            arrays.update({f"{index}.{name}": array for name, array in step_arrays.items()})
        return {"steps": described, "spec": [step.model_dump(mode="json") for step in self.steps]}, arrays

    @classmethod
    def from_state(cls, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Pipeline:
        """The fitted pipeline that `state` described."""
        fitted: list[Fitted] = []
        for index, description in enumerate(state["steps"]):
            if "keeps_shape" in description:
                mean, matrix, back, ratio = (arrays[f"{index}.{n}"] for n in ("mean", "matrix", "back", "ratio"))
                keeps = description["keeps_shape"]
                fitted.append(Projection(description["kind"], mean, matrix, back, keeps, ratio))
            else:
                shift, scale = arrays[f"{index}.shift"], arrays[f"{index}.scale"]
                fitted.append(Elementwise(description["kind"], shift, scale, description["offset"]))
        return cls(_STEPS.validate_python(state["spec"]), fitted)


def _fit(step: Any, x: NDArray[Any], noise: NDArray[np.float64], indicators: NDArray[np.bool_] | None) -> Fitted:
    if isinstance(step, ZeroMean):
        return fit_zero_mean(step, x)
    if isinstance(step, ZScore):
        return fit_z_score(step, x, indicators)
    if isinstance(step, MinMax):
        return fit_min_max(step, x)
    if isinstance(step, Pca):
        return fit_pca(step, x, noise)
    assert isinstance(step, Whiten)
    return fit_whiten(step, x, noise)


def pipeline(steps: Sequence[Any]) -> Pipeline:
    """A pipeline of spec models or dicts such as `{"kind": "pca", "components": 2}`."""
    return Pipeline(_STEPS.validate_python(list(steps)))
