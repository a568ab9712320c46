"""Columns from text cells or JSON values: numeric if all values are numbers, else categorical; gaps are kept."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainkit.data.dataset import Column, categories_of
from trainkit.data.errors import DataError, DataProblem, data_error

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-", "missing"})
NUMBER = re.compile(r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$|^[+-]?inf(inity)?$", re.IGNORECASE)
COMMA_NUMBER = re.compile(r"^[+-]?\d+(,\d+)?([eE][+-]?\d+)?$")
LABEL_COLUMNS = ("label", "class", "target", "category", "y")
"""Usual names of the label column, if no target is given."""
MAX_BAD_ROWS_SHARE = 0.05


def column_of_text(values: Sequence[str], *, decimal_comma: bool = False) -> Column:
    """Return a numeric column if every present value is a number, else a categorical one.

    `decimal_comma` also reads 1,5 as 1.5.
    """
    stripped = [value.strip() for value in values]
    present = [value for value in stripped if value.lower() not in MISSING]
    comma = decimal_comma and any("," in value for value in present) and all(map(COMMA_NUMBER.match, present))
    if present and (comma or all(map(NUMBER.match, present))):
        texts = [value.replace(",", ".") for value in stripped] if comma else stripped
        return Column(np.array([math.nan if text.lower() in MISSING else float(text) for text in texts], np.float64))
    return categories_of([None if value.lower() in MISSING else value for value in stripped])


def column_of_values(values: Sequence[Any], name: str) -> Column:
    """A column of JSON values. Raises DataError for lists and objects."""
    for row, value in enumerate(values, 1):
        if isinstance(value, list | dict):
            hint = "Flatten it into separate columns."
            raise data_error(
                "nested_value",
                f"column {name!r} holds a {type(value).__name__}",
                f"row {row}",
                hint,
            )
    if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
        return Column(np.array([_as_float(value) for value in values], np.float64))
    shown = [
        None if value is None else str(value).lower() if isinstance(value, bool) else str(value) for value in values
    ]
    return categories_of([None if value is None or value.lower() in MISSING else value for value in shown])


def _as_float(value: float | None) -> float:
    """Return the value as float: NaN for a gap, infinity for an integer beyond the range of floats, as in CSV."""
    try:
        return math.nan if value is None else float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def check_bad_rows(bad: Sequence[dict[str, str]], lost: int, total: int) -> None:
    """Raise DataError with up to 100 bad rows when they lose more than 5 % of the lines."""
    if total and lost > MAX_BAD_ROWS_SHARE * total:
        hint = "Repair these lines. Up to 5 % of bad lines are left out with a warning."
        raise DataError([DataProblem("bad_row", item["reason"], item["where"], hint) for item in bad[:100]])
