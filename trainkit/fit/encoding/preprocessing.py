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

COLUMNS = "columns."
"""Prefix of the arrays of the columns' preprocessing."""
CHUNK_VALUES = 1 << 24
"""Values preprocessed at a time, so that a large dataset needs no second copy in the making."""


class Preprocessing:
    """x -> pipeline(x): (B, d), (B, C, H, W) with pixels in [0, 1], or (B, T, F) step by step."""

    def __init__(self, fitted: Pipeline | None, form: str, columns: Preprocessing | None = None) -> None:
        self.pipeline = fitted
        self.form = form
        self.columns = columns
        """Of the columns beside images; None where there are none."""

    @classmethod
    def fit(
        cls,
        steps: Sequence[Any],
        train: Encoded,
        form: str,
        column_steps: Sequence[Any] | None = None,
        indicators: NDArray[np.bool_] | None = None,
    ) -> Preprocessing:
        """Fit the steps, in order, on the training part alone. `impute` is the table encoder's and left out.

        `column_steps`: those of the columns beside images. `indicators`: which values of a row of columns are one-hot.
        """
        columns = None
        if column_steps is not None:
            assert train.side_input is not None
            columns = cls.fit(column_steps, Encoded(train.side_input), "vector", indicators=indicators)
        chosen = [step for step in steps if step.kind != "impute"]
        if not chosen:
            return cls(None, form, columns)
        x = as_float(train.x)
        if form == "sequence":
            x = x.reshape(-1, x.shape[-1]) if train.side_input is None else _true_steps(x, train.side_input)
        return cls(pipeline(chosen).fit(x, indicators if form == "vector" else None), form, columns)

    def side_input(self, raw: Tensor | None) -> Tensor | None:
        """The network's second input: columns beside images are preprocessed, lengths of sequences stay as they are."""
        return raw if raw is None or self.columns is None else self.columns.apply_all(raw)

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

    def columns_width(self, raw: Tensor | None) -> int:
        """Columns beside images after preprocessing; 0 where there are none."""
        return 0 if raw is None or self.columns is None else self.columns.output_shape((raw.shape[1],))[0]

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A sample's shape after preprocessing."""
        if self.pipeline is None:
            return shape
        if self.form != "sequence":
            return tuple(self.pipeline.output_shape(shape))
        return (shape[0], *self.pipeline.output_shape(shape[1:]))

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """JSON-able description and arrays."""
        description, arrays = (None, {}) if self.pipeline is None else self.pipeline.state()
        state = {"form": self.form, "pipeline": description}
        if self.columns is None:
            return state, arrays
        of_columns, column_arrays = self.columns.state()
        return {**state, "columns": of_columns}, {
            **arrays,
            **{COLUMNS + name: array for name, array in column_arrays.items()},
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Preprocessing:
        """What `state` gave."""
        columns = None
        if "columns" in state:
            of_columns = {name.removeprefix(COLUMNS): one for name, one in arrays.items() if name.startswith(COLUMNS)}
            columns = cls.from_state(state["columns"], of_columns)
        if state["pipeline"] is None:
            return cls(None, state["form"], columns)
        return cls(Pipeline.from_state(state["pipeline"], arrays), state["form"], columns)


def _true_steps(x: Tensor, lengths: Tensor) -> Tensor:
    """The steps of all sequences without the padding, (sum T_i, F)."""
    mask = torch.from_numpy(np.arange(x.shape[1])[None, :] < lengths.numpy()[:, None])
    return x[mask]
