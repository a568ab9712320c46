"""Tables: CSV and similar files, Excel, Parquet, JSON Lines or one JSON list of objects. Bad rows are reported by line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import PART_NAMES, Column, Dataset, TableInputs, make_dataset
from trainkit.data.errors import data_error
from trainkit.data.file_types import refuse_other_types
from trainkit.data.findings import Finding, finding
from trainkit.data.table.column_detection import (
    Cells,
    DetectedColumn,
    detect_text,
    detect_values,
    file_evidence,
    is_number_text,
)
from trainkit.data.table.column_report import findings_of, reading_of
from trainkit.data.table.dialect import BLANKS, Dialect, decode_text, detect_dialect
from trainkit.data.table.excel import is_workbook, read_sheet
from trainkit.data.table.json_rows import ABSENT, JSON_ARRAY, fields_of, json_lines, json_list
from trainkit.data.table.parquet import read_distinct, read_parquet
from trainkit.data.table.table_format import TableFormat
from trainkit.data.table.text_columns import TextColumn, read_text_columns
from trainkit.data.text import storable
from trainkit.spec.facts import MOST_CATEGORIES
from trainkit.spec.read_options import DEFAULT_READ_OPTIONS, ReadOptions
from trainkit.spec.synonyms import nearest

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".xlsx", ".xlsm")
OTHER_DELIMITERS = {" ": "blanks", ":": "colons", "~": "tildes", "^": "carets", "/": "slashes"}
"""Delimiters that are not detected, because they often are a part of values."""
CELLS_AT_ONCE = 2**16
"""Cells whose numbers are Python's at once, before they are an array."""
LABEL_COLUMNS = ("label", "class", "target", "category", "y")
"""Usual names of the label column, if no target is given."""


@dataclass(frozen=True, slots=True)
class ReadTable:
    """A table that was read."""

    columns: dict[str, Column]
    format: TableFormat
    """How it was read: also of the split column, which is no longer among the columns."""
    split: NDArray[np.int8] | None
    """Predefined part of each row."""
    details: dict[str, Any]
    """For the report."""


def read_table(
    path: Path, *, target: str | None = None, reading: ReadOptions = DEFAULT_READ_OPTIONS
) -> tuple[Dataset, dict[str, Any]]:
    """Return (dataset, details for the report). Raises DataError naming file, row or column."""
    table = read_columns(path, target, reading)
    inputs = TableInputs(table.columns, table.format)
    return make_dataset("table", inputs, None, None, table.split, target=target), table.details


def read_columns(path: Path, target: str | None, reading: ReadOptions = DEFAULT_READ_OPTIONS) -> ReadTable:
    """Read a table's file: decide how, and read every cell in that way.

    Raises DataError, also if `target` or a column of `reading.columns` does not exist.
    """
    with path.open("rb") as file:
        start = file.read(4096)
    bad: list[dict[str, str]] = []
    details: dict[str, Any] = {"unreadable": bad}
    findings: list[Finding] = []
    if start.startswith(b"PAR1"):
        columns, detected = read_parquet(path, reading)
        dialect = Dialect(file="parquet")
    elif is_workbook(path):
        sheet = read_sheet(path, sheet=reading.sheet, header=reading.header, skip_rows=reading.skip_rows or 0)
        columns, detected = _of_values(sheet.columns, reading)
        dialect, findings = (
            Dialect(file="excel", header=sheet.header, sheet=sheet.sheet, skip_rows=reading.skip_rows or 0),
            sheet.findings,
        )
        details |= {"sheet": sheet.sheet, "header": sheet.header}
    else:
        refuse_other_types(start, path.name, encoded=reading.encoding is not None)
        text, encoding = decode_text(path.read_bytes(), path.name, reading.encoding)
        if JSON_ARRAY.match(text):
            dialect = Dialect(file="json", encoding=encoding)
            columns, detected = _of_records(json_list(text, path.name), reading)
        elif text[:4096].lstrip().startswith("{"):
            dialect = Dialect(file="json_lines", encoding=encoding)
            columns, detected = _of_records(json_lines(text, bad)[0], reading)
        else:
            dialect, columns, detected = _delimited(path.name, text, encoding, bad, reading)
            details |= {"delimiter": dialect.delimiter, "encoding": encoding, "header": dialect.header}
    if reading.sheet is not None and dialect.file != "excel":
        raise data_error("not_excel", "`sheet` is for Excel workbooks, and this is none", "sheet", "Leave it out.")
    if reading.skip_rows and dialect.file not in ("excel", "delimited"):
        message = "`skip_rows` is for delimited text and Excel workbooks, and this is neither"
        raise data_error("no_lines", message, "skip_rows", "Leave it out.")
    if dialect.delimiter == BLANKS and reading.delimiter is None:
        message = f"blanks keep its {len(columns)} columns apart; set `delimiter` if they are a part of values"
        findings = [*findings, finding("info", "aligned_columns", message)]
    if not columns:
        raise data_error("no_columns", "the table has no columns", path.name)
    for place, name in (("target", target), *(("columns", name) for name in reading.columns or ())):
        if name is not None and name not in columns:
            raise _missing_column(name, columns, place)
    details["column_readings"] = {one.format.name: reading_of(one) for one in detected}
    details["column_findings"] = [*findings, *(found for one in detected for found in findings_of(one))]
    if dialect.file == "delimited" and len(detected) == 1 and reading.delimiter is None:
        details["column_findings"] += _one_column(detected[0])
    split = None
    if named := split_column(columns, target):
        details["split_column"] = named
        split = parts_of(columns.pop(named))
    table_format = TableFormat(dialect=dialect, columns=tuple(one.format for one in detected))
    return ReadTable(columns, table_format, split, details)


def _one_column(detected: DetectedColumn) -> list[Finding]:
    """Return a finding when every row of a single column of text holds the same number of another delimiter."""
    texts = [text for text, _ in detected.cells if text]
    for character, shown in OTHER_DELIMITERS.items():
        counts = {text.count(character) for text in texts}
        if detected.format.type == "category" and len(texts) > 1 and len(counts) == 1 and counts != {0}:
            message = (
                f"every row is one value with the same number of {shown} in it: set `delimiter` if they separate values"
            )
            return [finding("warning", "one_column", message, detected.format.name)]
    return []


def _missing_column(name: str, columns: Mapping[str, Column], place: str) -> Exception:
    listing = f"Columns: {', '.join(list(columns)[:30])}."
    hint = " ".join(part for part in (nearest(name, columns), listing) if part)
    return data_error("missing_column", f'there is no column "{name}"', place, hint)


def split_column(columns: Mapping[str, Column], target: str | None) -> str | None:
    """Return the column named "split" if all its values name a part (train, validation, test), else None."""
    for name, column in columns.items():
        if name.lower() != "split" or name == target or not column.categories or len(columns) == 1:
            continue
        if (column.values >= 0).all() and all(value.lower() in PART_NAMES for value in column.categories):
            return name
    return None


def parts_of(column: Column) -> NDArray[np.int8]:
    """Return the (n,) part codes of the split column."""
    codes = np.array([PART_NAMES[value.lower()] for value in column.categories or ()], np.int8)
    parts: NDArray[np.int8] = codes[column.values]
    return parts


def _delimited(
    where: str, text: str, encoding: str, bad: list[dict[str, str]], options: ReadOptions
) -> tuple[Dialect, dict[str, Column], list[DetectedColumn]]:
    """Read delimited text. Rows of a wrong length are appended to `bad`; more than 5 % of them raise DataError."""
    dialect, _ = detect_dialect(text, encoding, options, is_number_text)
    header = dialect.header if options.header is not None else None
    header, table = read_text_columns(text, dialect, header, where, bad)
    dialect = dialect.model_copy(update={"header": header})
    evidence = file_evidence((column.counts for column in table), dialect.delimiter)
    columns: dict[str, Column] = {}
    detected: list[DetectedColumn] = []
    for column in table:
        one = detect_text(column.name, column.counts, options.column(column.name), evidence)
        columns[column.name] = _text_column(one, column)
        detected.append(one)
    return dialect, columns, detected


def _text_column(detected: DetectedColumn, column: TextColumn) -> Column:
    """Read a column of text, each different cell once."""
    cells = list(column.counts)
    if detected.format.type == "number" and len(cells) > MOST_CATEGORIES:
        parts = [detected.format.read_all(cells[at : at + CELLS_AT_ONCE]) for at in range(0, len(cells), CELLS_AT_ONCE)]
        numbers = [np.array([np.nan if value is None else value for value in part]) for part in parts]
        return Column(np.concatenate(numbers)[column.codes])
    return read_distinct(detected.format, cells, column.codes)


def _of_records(records: list[dict[str, Any]], options: ReadOptions) -> tuple[dict[str, Column], list[DetectedColumn]]:
    return _of_values({storable(field): values for field, values in fields_of(records).items()}, options)


def _of_values(fields: Mapping[str, list[Any]], options: ReadOptions) -> tuple[dict[str, Column], list[DetectedColumn]]:
    """Read columns of typed values; None is a missing value, ABSENT one whose field a record leaves out."""
    columns: dict[str, Column] = {}
    detected: list[DetectedColumn] = []
    for name, values in fields.items():
        optional = any(value is ABSENT for value in values)
        values = [None if value is ABSENT else value for value in values]
        for row, value in enumerate(values, 1):
            if isinstance(value, list | dict):
                message = f'column "{name}" holds a {type(value).__name__}'
                raise data_error("nested_value", message, f"row {row}", "Flatten it into separate columns.")
        one = detect_values(name, _typed_counts(values), options.column(name), optional=optional)
        columns[name] = _column(one, values)
        detected.append(one)
    return columns, detected


def _typed_counts(values: list[Any]) -> Cells:
    """Return each different value and its count; true and 1 are different, NaN is None."""
    counts = Counter((type(value), value) for value in values)
    return [(value if value == value else None, count) for (_, value), count in counts.items()]


def _column(detected: DetectedColumn, cells: Any) -> Column:
    """Read all values of a typed column, each different one once."""
    places: dict[Any, int] = {}
    codes = np.fromiter((places.setdefault((type(c), c), len(places)) for c in cells), np.int64, count=len(cells))
    distinct = [value if value == value else None for _, value in places]
    return read_distinct(detected.format, distinct, codes)
