"""Table rows to vectors: numbers as they are, categories one-hot, gaps filled; learnt from the training part alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.data import TableInputs
from trainkit.spec import ColumnFacts
from trainkit.spec.preprocess import Impute


@dataclass(frozen=True, slots=True)
class NumericColumn:
    """One value a row."""

    name: str
    fill: float | None
    """What replaces a gap; None: gaps are errors."""
    type: str = "numeric"


@dataclass(frozen=True, slots=True)
class CategoricalColumn:
    """One-hot over `vocabulary`; a category the training part did not hold is all zeros."""

    name: str
    vocabulary: tuple[str, ...]
    fill: str | None
    """The category of gaps, or None: gaps are errors."""
    own: bool = False
    """Gaps are a category of their own, the last one."""
    type: str = "categorical"

    @property
    def width(self) -> int:
        return len(self.vocabulary) + int(self.own)


class TableEncoder:
    """(n, d) float32: the columns in the spec's order, each numeric one value wide, each categorical one-hot."""

    kind = "table"

    def __init__(self, columns: Sequence[NumericColumn | CategoricalColumn]) -> None:
        self.columns = tuple(columns)
        self.shape = (sum(_width(column) for column in self.columns),)

    @classmethod
    def fit(
        cls, inputs: TableInputs, columns: Sequence[ColumnFacts], impute: Impute | None, train: NDArray[np.int64]
    ) -> TableEncoder:
        """Vocabularies (in the dataset's order of categories) and fill values of the training rows."""
        fitted: list[NumericColumn | CategoricalColumn] = []
        for facts in columns:
            column = inputs.columns[facts.name]
            if facts.type == "numeric":
                fitted.append(NumericColumn(facts.name, _numeric_fill(np.asarray(column.values)[train], impute)))
            else:
                fitted.append(
                    _categorical(facts.name, np.asarray(column.values)[train], column.categories or (), impute)
                )
        return cls(fitted)

    def encode(self, inputs: TableInputs, index: NDArray[np.int64]) -> Tensor:
        """The chosen rows. Raises ValueError for a gap where nothing fills it."""
        blocks = []
        for column in self.columns:
            source = inputs.columns[column.name]
            values = np.asarray(source.values)[index]
            if isinstance(column, NumericColumn):
                blocks.append(_numbers(column, values.astype(np.float64)))
            else:
                categories = [*(source.categories or ()), None]  # code -1, a gap, reads the last entry
                blocks.append(_one_hot(column, [categories[code] for code in values]))
        return _join(blocks, len(index))

    def parse(self, x: Any) -> Tensor:
        """One row or a list of rows, each an object of column name to value; a missing key is a gap.

        Rows may also be lists in the columns' order. Raises ValueError naming row and column.
        """
        rows = [x] if isinstance(x, Mapping) else list(x)
        if rows and not isinstance(rows[0], Mapping | Sequence | np.ndarray):
            rows = [rows]
        records = [self._record(row, number) for number, row in enumerate(rows)]
        blocks = []
        for column in self.columns:
            values = [record.get(column.name) for record in records]
            if isinstance(column, NumericColumn):
                numbers = np.array([_to_number(column, value, row) for row, value in enumerate(values)], np.float64)
                blocks.append(_numbers(column, numbers))
            else:
                blocks.append(_one_hot(column, [_to_category(value) for value in values]))
        return _join(blocks, len(records))

    def _record(self, row: Any, number: int) -> Mapping[str, Any]:
        if isinstance(row, Mapping):
            return row
        if len(row) != len(self.columns):
            names = ", ".join(column.name for column in self.columns)
            raise ValueError(f"row {number} has {len(row)} values for {len(self.columns)} columns: {names}")
        return dict(zip((column.name for column in self.columns), row, strict=True))

    def feature_names(self) -> list[str]:
        """One name for each of the d values."""
        names: list[str] = []
        for column in self.columns:
            if isinstance(column, NumericColumn):
                names.append(column.name)
            else:
                names += [f"{column.name}={value}" for value in column.vocabulary]
                names += [f"{column.name}=?"] * int(column.own)
        return names

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "columns": [asdict(column) for column in self.columns]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TableEncoder:
        columns: list[NumericColumn | CategoricalColumn] = []
        for one in state["columns"]:
            if one["type"] == "numeric":
                columns.append(NumericColumn(**one))
            else:
                columns.append(CategoricalColumn(**{**one, "vocabulary": tuple(one["vocabulary"])}))
        return cls(columns)


def _width(column: NumericColumn | CategoricalColumn) -> int:
    return 1 if isinstance(column, NumericColumn) else column.width


def _numeric_fill(values: NDArray[Any], impute: Impute | None) -> float | None:
    if impute is None:
        return None
    present = values[~np.isnan(values)]
    if impute.numeric == "zero" or present.size == 0:
        return 0.0
    return float(present.mean() if impute.numeric == "mean" else np.median(present))


def _categorical(name: str, codes: NDArray[Any], categories: Sequence[str], impute: Impute | None) -> CategoricalColumn:
    counts = np.bincount(codes[codes >= 0], minlength=len(categories))
    vocabulary = tuple(value for value, count in zip(categories, counts, strict=True) if count)
    if impute is None:
        return CategoricalColumn(name, vocabulary, None)
    if impute.categorical == "category":
        return CategoricalColumn(name, vocabulary, None, own=bool((codes < 0).any()))
    return CategoricalColumn(name, vocabulary, categories[int(counts.argmax())] if vocabulary else "")


def _numbers(column: NumericColumn, values: NDArray[np.float64]) -> NDArray[np.float32]:
    gaps = np.isnan(values)
    if gaps.any():
        if column.fill is None:
            raise ValueError(
                f'row {int(gaps.argmax())} has no value in "{column.name}", and the model was trained without impute'
            )
        values = np.where(gaps, column.fill, values)
    return values.astype(np.float32)[:, None]


def _one_hot(column: CategoricalColumn, values: Sequence[str | None]) -> NDArray[np.float32]:
    place = {value: position for position, value in enumerate(column.vocabulary)}
    block = np.zeros((len(values), column.width), np.float32)
    for row, value in enumerate(values):
        if value is None and column.own:
            block[row, -1] = 1.0
            continue
        position = place.get(column.fill if value is None and column.fill is not None else value or "")
        if position is not None:
            block[row, position] = 1.0
    return block


def _join(blocks: Sequence[NDArray[np.float32]], rows: int) -> Tensor:
    return torch.from_numpy(np.concatenate(blocks, axis=1) if blocks else np.zeros((rows, 0), np.float32))


def _to_number(column: NumericColumn, value: Any, row: int) -> float:
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f'row {row}: "{column.name}" must be a number, got {value!r}') from None


def _to_category(value: Any) -> str | None:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
