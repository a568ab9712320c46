"""Columns of delimited text as codes of their different cells: a row costs some bytes, and not a list of texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.errors import data_error
from trainkit.data.limits import check_memory
from trainkit.data.table.column_detection import Counts, is_quantity
from trainkit.data.table.delimited import (
    MAX_BAD_ROWS_SHARE,
    DelimitedRow,
    check_bad_rows,
    check_size,
    column_names,
    is_header,
    iterate_rows,
)
from trainkit.data.table.dialect import SNIFFED_ROWS, Dialect
from trainkit.data.text import storable

CODED_CELL_BYTES = 24
"""Peak memory of each cell beside the text, measured: its code, its value, and the report's copies."""
DIFFERENT_TEXT_BYTES = 400
"""The same of each different cell of a column: the text, its place, and what finds the column's type."""
ROWS_AT_ONCE = 2**14


@dataclass(frozen=True, slots=True)
class TextColumn:
    """A column: each different cell with its count, in order of appearance, and for each row the number of its cell."""

    name: str
    counts: Counts
    codes: NDArray[np.int32]


class _Coder:
    """Numbers the cells of one column as they come."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._places: dict[str, int] = {}
        self._blocks: list[NDArray[np.int32]] = []

    def __len__(self) -> int:
        return len(self._places)

    def add(self, cells: Sequence[str]) -> None:
        places = self._places
        codes = [places.setdefault(cell, len(places)) for cell in cells]
        self._blocks.append(np.array(codes, np.int32))

    def finish(self) -> TextColumn:
        codes = np.concatenate(self._blocks)
        self._blocks.clear()
        for cell, count in zip(self._places, np.bincount(codes).tolist(), strict=True):
            self._places[cell] = count  # no key is new: the order stays
        return TextColumn(self.name, self._places, codes)


def read_text_columns(
    text: str, dialect: Dialect, header: bool | None, where: str, bad: list[dict[str, str]]
) -> tuple[bool, list[TextColumn]]:
    """Return (whether the first row names the columns, the columns). `header` None: by the first rows.

    Rows of a wrong length are appended to `bad`. Raises DataError for more than 5 % of them, for text without rows, and
    for more than memory holds: before the text is split, or as soon as there are too many different cells.
    """
    check_size(text, dialect, 0, CODED_CELL_BYTES)
    rows = iterate_rows(text, dialect)
    first = list(islice(rows, SNIFFED_ROWS))
    if not first:
        raise data_error("empty", "the file holds no values", where)
    if header is None:
        header = is_header([row.cells for row in first], is_quantity)
    names = [storable(name) for name in column_names(first[0].cells, header=header)]
    coders = [_Coder(name) for name in names]
    most_lost = MAX_BAD_ROWS_SHARE * (text.count("\n") + text.count("\r") + 1)
    kept, lost = 0, 0
    remaining = chain(first[int(header) :], rows)
    del first
    while block := list(islice(remaining, ROWS_AT_ONCE)):
        good = [row.cells for row in block if len(row.cells) == len(names) and not row.closes_wrong]
        if len(good) < len(block):
            lost += _note_bad_rows(block, len(names), bad)
            if lost > most_lost:
                break  # too many, whatever comes
        kept += len(good)
        for coder, cells in zip(coders, zip(*good, strict=True), strict=False):
            coder.add(cells)
        _check_different(text, coders, kept)
    check_bad_rows(bad, lost, kept + lost)
    if not kept:
        raise data_error("no_rows", "the file has a header but no rows", where)
    return header, [coder.finish() for coder in coders]


def _note_bad_rows(rows: Iterable[DelimitedRow], width: int, bad: list[dict[str, str]]) -> int:
    """Append what is wrong with rows; return how many lines are lost."""
    lost = 0
    for row in rows:
        if (reason := row.misread(width)) is not None:
            # a quote that is closed too late joins several rows: all their lines are lost
            lost += row.end - row.start + 1
            bad.append({"where": f"line {row.start}", "reason": reason})
    return lost


def _check_different(text: str, coders: Sequence[_Coder], rows: int) -> None:
    """Raise DataError when the cells that are different from each other need more memory than there is."""
    different = sum(map(len, coders))
    needed = 3 * len(text) + CODED_CELL_BYTES * rows * len(coders) + DIFFERENT_TEXT_BYTES * different
    most: Any = max(coders, key=len)
    what = f'{different:,} different values in {rows:,} rows, most of them in column "{most.name}",'
    check_memory(needed, "", what)
