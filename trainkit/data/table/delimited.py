"""Delimited text: from lines to rows of cells, with the lines of each row, and the names of the columns."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from trainkit.data.errors import DataError, DataProblem, data_error
from trainkit.data.limits import check_columns, check_memory, check_names, limits
from trainkit.data.table.column_format import NUMBER_MISSING
from trainkit.data.table.dialect import BLANKS, SEPARATOR_LINE, SNIFFED_ROWS, Dialect, aligned_cells

FIELD_LIMIT = 10 * 2**20
LINE_BYTES, TEXT_CELL_BYTES = 320, 60
"""Peak memory of each line and each cell of the rows of a request beside the text itself, measured: Python's lists and
texts."""
BLOCK_CHARACTERS = 2**20
"""So much of a text is split into lines at once."""
RUN_OF_BLANKS = re.compile(r"[ \t]+")
MAX_BAD_ROWS_SHARE = 0.05


class DelimitedRow(NamedTuple):
    """A row of stripped cells, at lines `start` to `end`, counted from 1."""

    cells: list[str]
    start: int
    end: int
    closes_wrong: bool
    """Whether a quote opens on its first line and is closed in the wrong place."""

    def misread(self, width: int) -> str | None:
        """Return why it cannot be a row of `width` values, None for a good one."""
        if self.closes_wrong:
            return f"a quote opens on this line and is closed in the wrong place, on line {self.end}"
        return None if len(self.cells) == width else f"{len(self.cells)} values for {width} columns"


def read_rows(text: str, dialect: Dialect) -> list[DelimitedRow]:
    """Read all rows of a request. Raises DataError as `iterate_rows` does, and for more than memory holds."""
    check_size(text, dialect, LINE_BYTES, TEXT_CELL_BYTES)
    return list(iterate_rows(text, dialect))


def iterate_rows(text: str, dialect: Dialect) -> Iterator[DelimitedRow]:
    """Yield the rows of delimited text; empty rows and Excel's `sep=;` line are left out.

    Raises DataError for a quote that is never closed, or a cell that is too long.
    """
    csv.field_size_limit(FIELD_LIMIT)
    lines = _lines(text)
    skipped = 1 if SEPARATOR_LINE.fullmatch(next(_lines(text), "")) else 0
    skipped += dialect.skip_rows
    lines = islice(lines, skipped, None)
    if dialect.delimiter == BLANKS:
        lines = map(aligned_cells, lines)
    taken: list[str] = []
    """Lines of the row that is being read."""
    # blanks after a delimiter are no part of a value, and do not hide its quote
    reader = csv.reader(_noted(lines, taken), strict=False, **_options(dialect))
    before = 0
    hint = "Close the quote, or double it if it is part of the text."
    error = ""
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                start, end = skipped + before + 1, skipped + reader.line_num  # quoted values may span lines
                error = stray_quote(taken, dialect) if end > start else ""
                if "unexpected end" in error:
                    message = "a quote that opens in this row is never closed"
                    raise data_error("open_quote", message, f"line {start}", hint)
                yield DelimitedRow(cells, start, end, error != "")
            before = reader.line_num
            taken.clear()
    except csv.Error as failure:
        too_long = "limit" in str(failure)
        message = f"a value has more than {FIELD_LIMIT >> 20} MiB" if too_long else "a line break stands inside a value"
        raise data_error("bad_csv", message, f"line {skipped + before + 1}", hint) from None


def _lines(text: str) -> Iterator[str]:
    """Yield the lines with their ends, as universal newlines have them; a copy of a part of the text at a time."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + BLOCK_CHARACTERS) + 1 or len(text)
        yield from io.StringIO(text[start:end], newline="")
        start = end


def _noted(lines: Iterator[str], taken: list[str]) -> Iterator[str]:
    """Yield the lines, and keep them in a list that the reader of them empties."""
    for line in lines:
        taken.append(line)
        yield line


def check_size(text: str, dialect: Dialect, line_bytes: int, cell_bytes: int) -> None:
    """Raise DataError for text of too many columns, or of more lines and cells than memory holds, before it is split.

    `line_bytes`, `cell_bytes`: what each of them takes beside the text itself.
    """
    end = text.find("\n") + 1 or len(text)
    if _separators_in(text[:end], dialect) >= limits().columns:
        # delimiters between quotes separate nothing
        lines_of_text: Iterable[str] = io.StringIO(text, newline="")
        if dialect.delimiter == BLANKS:
            lines_of_text = map(aligned_cells, lines_of_text)
        first = next(csv.reader(lines_of_text, strict=False, **_options(dialect)), [])
        check_columns(len(first), "line 1")
    lines, delimiters = text.count("\n") + text.count("\r"), _separators_in(text, dialect)
    needed = 3 * len(text) + line_bytes * lines + cell_bytes * (lines + delimiters)
    check_memory(needed, "", f"{lines:,} lines of {lines + delimiters:,} values")


def _separators_in(text: str, dialect: Dialect) -> int:
    """Return the number of delimiters in a text; a run of blanks is one where blanks keep columns apart."""
    if dialect.delimiter == BLANKS:
        return sum(1 for _ in RUN_OF_BLANKS.finditer(text))
    return text.count(dialect.delimiter)


def _options(dialect: Dialect) -> dict[str, Any]:
    delimiter = "\t" if dialect.delimiter == BLANKS else dialect.delimiter
    return {"delimiter": delimiter, "quotechar": dialect.quote, "skipinitialspace": delimiter != " "}


def stray_quote(lines: Sequence[str], dialect: Dialect) -> str:
    """Return the error of the strict CSV reader for one row; the lenient reader accepts stray quotes."""
    try:
        list(csv.reader(lines, strict=True, **_options(dialect)))
    except csv.Error as error:
        return str(error)
    return ""


def is_header(rows: Sequence[Sequence[str]], is_number: Callable[[str], bool]) -> bool:
    """Return whether the first row names the columns: a column has a word above numbers only, or no cell is a number."""
    cells = rows[0]
    below = [row for row in rows[1:SNIFFED_ROWS] if len(row) == len(cells)]
    if not any(map(is_number, cells)):
        return True
    for index, cell in enumerate(cells):
        present = [row[index] for row in below if row[index] not in NUMBER_MISSING]
        if present and cell not in NUMBER_MISSING and not is_number(cell) and all(map(is_number, present)):
            return True
    return False


def column_names(cells: Sequence[str], *, header: bool) -> list[str]:
    """Return the names that the first row gives, or column_1, column_2 ... Raises DataError for a repeated name."""
    check_columns(len(cells), "line 1")
    check_names(cells if header else (), "line 1")
    names: dict[str, None] = {}
    for index, cell in enumerate(cells):
        name = (cell if header else "") or f"column_{index + 1}"
        if name in names:
            raise data_error("duplicate_column", f'there are two columns "{name}"', "line 1", "Rename one of them.")
        names[name] = None
    return list(names)


def check_bad_rows(bad: Sequence[dict[str, str]], lost: int, total: int) -> None:
    """Raise DataError with up to 100 bad rows when they lose more than 5 % of the lines."""
    if total and lost > MAX_BAD_ROWS_SHARE * total:
        hint = "Repair these lines. Up to 5 % of bad lines are left out with a warning."
        raise DataError([DataProblem("bad_row", item["reason"], item["where"], hint) for item in bad[:100]])
