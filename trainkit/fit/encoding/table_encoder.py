"""From rows of a table to tensors: a dataset's rows, or what a client sends to predict, checked against the training part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.data import TableInputs
from trainkit.data.errors import InputError, InputProblem
from trainkit.data.table.column_format import CellError, ColumnFormat, iso_date, shown
from trainkit.data.table.json_rows import ABSENT
from trainkit.data.table.request_rows import TableRows, records_of
from trainkit.data.table.table_format import TableFormat
from trainkit.spec.facts import ColumnFacts
from trainkit.spec.preprocess import Impute
from trainkit.spec.synonyms import nearest

LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
SECONDS_A_DAY = 86400.0
MOST_PROBLEMS = 20
RowWarnings = tuple[dict[str, Any], ...]
"""`{column, code, message}` of one row; the codes are unseen_category, imputed and out_of_range."""


@dataclass(frozen=True, slots=True)
class NumericColumn:
    """One value a row. A date is the days since the first date of the training part."""

    name: str
    fill: float | None
    """What replaces a gap; None: gaps are errors."""
    low: float | None = None
    """The smallest value of the training part, None where it has no finite value."""
    high: float | None = None
    type: str = "numeric"
    """numeric or date"""

    def scaled(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """(n, 1) of values without gaps."""
        if self.type == "date":
            values = (values - (self.low or 0.0)) / SECONDS_A_DAY
        with np.errstate(over="ignore"):
            return values.astype(np.float32)[:, None]

    def is_far(self, value: float) -> bool:
        """Whether a value lies farther from the training part's range than that range is wide."""
        if self.low is None or self.high is None:
            return False
        return max(self.low - value, value - self.high) > self.high - self.low

    def shown(self, value: float | None) -> str:
        """A value as a sentence shows it."""
        return "none" if value is None else iso_date(value) if self.type == "date" else f"{value:g}"


@dataclass(frozen=True, slots=True)
class CategoricalColumn:
    """One-hot over `vocabulary`; a category the training part did not hold is all zeros."""

    name: str
    vocabulary: tuple[str, ...]
    fill: str | None
    """The category of gaps, or None: gaps are errors."""
    has_gap_category: bool = False
    """Gaps are a category of their own, the last one."""
    gaps_allowed: bool = False
    """Gaps are no error: the spec imputes."""
    type: str = "categorical"

    @property
    def width(self) -> int:
        return len(self.vocabulary) + int(self.has_gap_category)


class TableEncoder:
    """(n, d) float32: the columns in the spec's order, each number or date one value wide, each category one-hot."""

    kind = "table"

    def __init__(self, columns: Sequence[NumericColumn | CategoricalColumn], table_format: TableFormat) -> None:
        self.columns = tuple(columns)
        self.format = table_format
        """How the training file was read: every later row is read in the same way."""
        self.shape = (sum(_width(column) for column in self.columns),)

    @classmethod
    def fit(
        cls, inputs: TableInputs, columns: Sequence[ColumnFacts], impute: Impute | None, train: NDArray[np.int64]
    ) -> TableEncoder:
        """Vocabularies (in the dataset's order of categories), ranges and fill values of the training rows."""
        fitted: list[NumericColumn | CategoricalColumn] = []
        for facts in columns:
            column = inputs.columns[facts.name]
            values = np.asarray(column.values)[train]
            if facts.type == "categorical":
                fitted.append(_categorical(facts.name, values, column.categories or (), impute))
            else:
                fitted.append(_numeric(facts, values, impute))
        return cls(fitted, inputs.format or TableFormat.of_columns(inputs.columns))

    @property
    def names(self) -> list[str]:
        """The columns that the model reads, in its order."""
        return [column.name for column in self.columns]

    @property
    def indicators(self) -> NDArray[np.bool_]:
        """(d,): which values of a row are one-hot."""
        return np.repeat(
            [isinstance(column, CategoricalColumn) for column in self.columns],
            [_width(column) for column in self.columns],
        )

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

    def parse(self, x: Any, *, ignore_extra: bool = False) -> tuple[Tensor, tuple[RowWarnings, ...]]:
        """The rows of a client, each read as the training file was, and what is to be said of each row.

        `x` is TableRows, one row, or a list of rows; a row is an object of column name to value, or a list of the values
        in the columns' order. Columns of the dataset that the model does not read are allowed, others only with
        `ignore_extra`. Raises InputError naming the rows and columns: missing and unknown columns, values of the wrong
        type, numbers that are not finite or beyond float32, and gaps where nothing fills them.
        """
        rows = records_of(x, self.names)
        check_columns(rows, self.names, self.format, ignore_extra=ignore_extra)
        warnings: list[list[dict[str, Any]]] = [[] for _ in range(rows.count)]
        problems: list[InputProblem] = []
        blocks = []
        for column in self.columns:
            column_format = self.format[column.name]
            read: list[Any] = []
            for row, value in enumerate(rows.columns.get(column.name) or [None] * rows.count):
                try:
                    checked = read_cell(column_format, None if value is ABSENT else value)
                    read.append(checked)
                    if warning := _warning(column, checked, value):
                        warnings[row].append({"column": column.name, **warning})
                except CellError as error:
                    read.append(None)
                    message = f'{rows.place(row)}: "{column.name}" {error}'
                    problems.append(InputProblem("invalid_input", message, rows.number(row), column.name))
            if problems:
                continue
            if isinstance(column, NumericColumn):
                blocks.append(_numbers(column, np.array([math.nan if v is None else v for v in read], np.float64)))
            else:
                blocks.append(_one_hot(column, read))
        if problems:
            raise InputError(sorted(problems, key=lambda problem: problem.row or 0)[:MOST_PROBLEMS])
        return _join(blocks, rows.count), tuple(tuple(of_row) for of_row in warnings)

    def feature_names(self) -> list[str]:
        """One name for each of the d values."""
        names: list[str] = []
        for column in self.columns:
            if isinstance(column, NumericColumn):
                names.append(column.name)
            else:
                names += [f"{column.name}={value}" for value in column.vocabulary]
                names += [f"{column.name}=?"] * int(column.has_gap_category)
        return names

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        columns = [asdict(column) for column in self.columns]
        return {"kind": self.kind, "columns": columns, "format": self.format.model_dump(mode="json")}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TableEncoder:
        """What `state` gave."""
        columns: list[NumericColumn | CategoricalColumn] = []
        for one in state["columns"]:
            if one["type"] == "categorical":
                columns.append(CategoricalColumn(**{**one, "vocabulary": tuple(one["vocabulary"])}))
            else:
                columns.append(NumericColumn(**one))
        return cls(columns, TableFormat.model_validate(state["format"]))


def check_columns(rows: TableRows, needed: Sequence[str], table: TableFormat, *, ignore_extra: bool) -> None:
    """Raise InputError for the first row that lacks a needed column, or has one that the dataset does not have.

    Fields that rows of a JSON file left out may be left out again, but not all of them.
    """
    if not rows.count:
        return
    lacking: dict[int, list[str]] = {}
    for name in needed:
        cells = rows.columns.get(name)
        optional = table[name].optional and not rows.columns.keys().isdisjoint(needed)
        row = 0 if cells is None else next((row for row, value in enumerate(cells) if value is ABSENT), None)
        if row is not None and not optional:
            lacking.setdefault(row, []).append(name)
    extra: dict[int, list[str]] = {}
    for name, cells in rows.columns.items():
        if table.column(name) is None and not ignore_extra:
            extra.setdefault(next(row for row, value in enumerate(cells) if value is not ABSENT), []).append(name)
    hint = f"Columns of the model: {', '.join(needed[:30])}{' ...' if len(needed) > 30 else ''}."
    problems = []
    for row in sorted({*lacking, *extra}):
        for name in lacking.get(row, ()):
            message = f'{rows.place(row)}: the column "{name}" is missing'
            problems.append(InputProblem("missing_column", message, rows.number(row), name, hint))
        for name in extra.get(row, ()):
            allow = f"{nearest(name, needed)} Leave it out, or send ?ignore_extra=true.".strip()
            message = f'{rows.place(row)}: the model knows no column "{name}"'
            problems.append(InputProblem("unknown_column", message, rows.number(row), name, allow))
    if problems:
        raise InputError(problems[:MOST_PROBLEMS])


def read_cell(column: ColumnFormat, value: Any) -> float | str | None:
    """Read a cell of a client. Raises CellError, also for numbers that no training value can be."""
    if isinstance(value, float) and math.isnan(value):
        raise CellError("is NaN; a missing value is null")
    read = column.read(value)
    if isinstance(read, float) and not abs(read) <= LARGEST_FLOAT32:
        raise CellError(f"is {shown(value)}; numbers are finite and at most 3.4e38")
    return read


def _warning(column: NumericColumn | CategoricalColumn, value: float | str | None, cell: Any) -> dict[str, str] | None:
    """What is to be said of a value. Raises CellError for a gap where nothing fills it."""
    if value is None:
        word = f" ({shown(cell)} is a missing value)" if isinstance(cell, str) and cell else ""
        allowed = column.fill is not None if isinstance(column, NumericColumn) else column.gaps_allowed
        if not allowed:
            raise CellError(f"has no value{word}, and the model was trained without impute")
        if isinstance(column, NumericColumn):
            filled = f"filled with {column.shown(column.fill)}"
        elif column.has_gap_category:
            filled = "taken as the category of missing values"
        elif column.fill is None:
            filled = "taken as none of the categories: the training part had no missing value"
        else:
            filled = f"filled with {shown(column.fill)}"
        return {"code": "imputed", "message": f'"{column.name}" has no value{word}: {filled}'}
    if isinstance(column, CategoricalColumn):
        if value in column.vocabulary:
            return None
        message = f'"{column.name}": the training part had no {shown(value)}, so it counts as none of the categories'
        return {"code": "unseen_category", "message": message}
    if isinstance(value, float) and column.is_far(value):
        low, high = column.shown(column.low), column.shown(column.high)
        message = (
            f'"{column.name}" is {column.shown(value)}, far outside the range of the training part, {low} to {high}'
        )
        return {"code": "out_of_range", "message": message}
    return None


def _width(column: NumericColumn | CategoricalColumn) -> int:
    return 1 if isinstance(column, NumericColumn) else column.width


def _numeric(facts: ColumnFacts, values: NDArray[Any], impute: Impute | None) -> NumericColumn:
    present = values[np.isfinite(values)]
    low, high = (float(present.min()), float(present.max())) if present.size else (None, None)
    fill: float | None = None
    if impute is not None:
        known = values[~np.isnan(values)]
        zero = (low or 0.0) if facts.type == "date" else 0.0
        if impute.numeric == "zero" or known.size == 0:
            fill = zero
        else:
            fill = float(known.mean() if impute.numeric == "mean" else np.median(known))
    return NumericColumn(facts.name, fill, low, high, facts.type)


def _categorical(name: str, codes: NDArray[Any], categories: Sequence[str], impute: Impute | None) -> CategoricalColumn:
    counts = np.bincount(codes[codes >= 0], minlength=len(categories))
    vocabulary = tuple(value for value, count in zip(categories, counts, strict=True) if count)
    column = CategoricalColumn(name, vocabulary, None, gaps_allowed=impute is not None)
    if impute is None:
        return column
    if impute.categorical == "category":
        return replace(column, has_gap_category=bool((codes < 0).any()))
    return replace(column, fill=categories[int(counts.argmax())] if vocabulary else "")


def _numbers(column: NumericColumn, values: NDArray[np.float64]) -> NDArray[np.float32]:
    gaps = np.isnan(values)
    if gaps.any():
        if column.fill is None:
            raise ValueError(
                f'row {int(gaps.argmax())} has no value in "{column.name}", and the model was trained without impute'
            )
        values = np.where(gaps, column.fill, values)
    return column.scaled(values)


def _one_hot(column: CategoricalColumn, values: Sequence[str | None]) -> NDArray[np.float32]:
    place = {value: position for position, value in enumerate(column.vocabulary)}
    block = np.zeros((len(values), column.width), np.float32)
    for row, value in enumerate(values):
        if value is None and column.has_gap_category:
            block[row, -1] = 1.0
            continue
        category = column.fill if value is None else value
        position = None if category is None else place.get(category)
        if position is not None:
            block[row, position] = 1.0
    return block


def _join(blocks: Sequence[NDArray[np.float32]], rows: int) -> Tensor:
    return torch.from_numpy(np.concatenate(blocks, axis=1) if blocks else np.zeros((rows, 0), np.float32))
