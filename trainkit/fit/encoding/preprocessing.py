"""The fitted preprocessing between reading and the network: float conversion, then the spec's pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.fit.encoding.encode import Encoded, as_float
from trainkit.preprocess import Pipeline, pipeline

CHUNK_VALUES = 1 << 24
"""Values preprocessed at a time, so that a large dataset needs no second copy in the making."""


class Preprocessing:
    """x -> pipeline(x): (B, d), (B, C, H, W) with pixels in [0, 1], or (B, T, F) step by step."""

    def __init__(self, fitted: Pipeline | None, form: str) -> None:
        self.pipeline = fitted
        self.form = form

    @classmethod
    def fit(cls, steps: Sequence[Any], train: Encoded, form: str) -> Preprocessing:
        """Fit the steps, in order, on the training part alone. `impute` is the table encoder's and left out."""
        chosen = [step for step in steps if step.kind != "impute"]
        if not chosen:
            return cls(None, form)
        x = as_float(train.x)
        if form == "sequence":
            x = x.reshape(-1, x.shape[-1]) if train.lengths is None else _true_steps(x, train.lengths)
        return cls(pipeline(chosen).fit(x), form)

    def __call__(self, x: Tensor) -> Tensor:
        """One float batch."""
        if self.pipeline is None:
            return x
        if self.form != "sequence":
            out: Tensor = self.pipeline.transform(x)
            return out
        steps: Tensor = self.pipeline.transform(x.reshape(-1, x.shape[-1]))
        return steps.reshape(*x.shape[:2], -1)

    def apply_all(self, x: Tensor) -> Tensor:
        """A whole part, raw, in chunks."""
        rows = max(1, CHUNK_VALUES // max(1, x[0].numel() if len(x) else 1))
        return torch.cat([self(as_float(x[i : i + rows])) for i in range(0, max(len(x), 1), rows)])

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A sample's shape after preprocessing."""
        if self.pipeline is None:
            return shape
        if self.form != "sequence":
            return tuple(self.pipeline.output_shape(shape))
        return (shape[0], *self.pipeline.output_shape(shape[1:]))

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """JSON-able description and arrays."""
        if self.pipeline is None:
            return {"form": self.form, "pipeline": None}, {}
        description, arrays = self.pipeline.state()
        return {"form": self.form, "pipeline": description}, arrays

    @classmethod
    def from_state(cls, state: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Preprocessing:
        """What `state` gave."""
        if state["pipeline"] is None:
            return cls(None, state["form"])
        return cls(Pipeline.from_state(state["pipeline"], arrays), state["form"])


def _true_steps(x: Tensor, lengths: Tensor) -> Tensor:
    """The steps of all sequences without the padding, (sum T_i, F)."""
    mask = torch.from_numpy(np.arange(x.shape[1])[None, :] < lengths.numpy()[:, None])
    return x[mask]
