"""Tables: CSV and TSV (dialect, encoding, header sniffed), Parquet, JSON Lines. Every bad row is named by its line."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import PART_NAMES, Column, Dataset, TableInputs, categories_of, make_dataset
from trainkit.data.errors import DataError, DataProblem, refuse
from trainkit.spec.problems import nearest

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-", "missing"})
NUMBER = re.compile(r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$|^[+-]?inf(inity)?$", re.IGNORECASE)
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
MOST_BAD_ROWS = 0.05
MOST_COLUMNS = 100_000
FIELD_LIMIT = 10 * 2**20


def read_table(path: Path, *, target: str | None = None) -> tuple[Dataset, dict[str, Any]]:
    """(dataset, details for the report). Raises DataError naming file, row or column."""
    columns, split, details = read_columns(path, target)
    return make_dataset("table", TableInputs(columns), None, None, split, target=target), details


def read_columns(path: Path, target: str | None) -> tuple[dict[str, Column], NDArray[np.int8] | None, dict[str, Any]]:
    """(columns, predefined part of each row or None, details); `target` must be one of the columns."""
    with path.open("rb") as file:
        start = file.read(8)
    bad: list[dict[str, str]] = []
    details: dict[str, Any] = {"unreadable": bad}
    if start[:4] == b"PAR1":
        columns = _parquet(path)
    elif start.lstrip()[:1] == b"{":
        columns = _json_lines(path, bad)
    else:
        columns = _delimited(path, bad, details)
    if not columns:
        raise refuse("no_columns", "the table has no columns", path.name)
    if target is not None and target not in columns:
        hint = " ".join(
            part for part in (nearest(target, columns), f"Columns: {', '.join(list(columns)[:30])}.") if part
        )
        raise refuse("missing_column", f'there is no column "{target}"', "target", hint)
    split = None
    if named := split_column(columns, target):
        details["split_column"] = named
        split = parts_of(columns.pop(named))
    return columns, split, details


def split_column(columns: Mapping[str, Column], target: str | None) -> str | None:
    """The column called "split" whose every value names a part (train, validation, test); None without one."""
    for name, column in columns.items():
        if name.lower() != "split" or name == target or not column.categories or len(columns) == 1:
            continue
        if (column.values >= 0).all() and all(value.lower() in PART_NAMES for value in column.categories):
            return name
    return None


def parts_of(column: Column) -> NDArray[np.int8]:
    """(n,) part codes of a column that `split_column` found."""
    codes = np.array([PART_NAMES[value.lower()] for value in column.categories or ()], np.int8)
    return codes[column.values]


def decode_text(raw: bytes, where: str) -> tuple[str, str]:
    """(text, encoding): a byte-order mark decides, else UTF-8, else Windows-1252. Raises DataError for binary data."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if raw.startswith(mark):
            try:
                return raw.decode(encoding), encoding
            except UnicodeDecodeError as error:
                raise refuse("bad_encoding", f"not {encoding}: {error.reason}", where) from None
    if b"\x00" in raw:
        line = raw[: raw.index(b"\x00")].count(b"\n") + 1
        raise refuse("binary", "the file holds NUL bytes: it is not text", f"line {line}", "Export it as CSV again.")
    try:
        return raw.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace"), "cp1252"


def _delimited(path: Path, bad: list[dict[str, str]], details: dict[str, Any]) -> dict[str, Column]:
    text, encoding = decode_text(path.read_bytes(), path.name)
    if not text.strip():
        raise refuse("empty", "the file is empty", path.name)
    delimiter = _delimiter(text)
    csv.field_size_limit(FIELD_LIMIT)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=False)
    rows: list[list[str]] = []
    lines: list[int] = []
    before = 0
    try:
        for row in reader:
            if row and any(cell.strip() for cell in row):
                rows.append(row)
                lines.append(before + 1)  # where the row begins: quoted values may span lines
            before = reader.line_num
    except csv.Error as error:
        raise refuse("bad_csv", str(error), f"line {reader.line_num}", "Check the quotes on that line.") from None
    names, first = _header(rows[0])
    details.update({"delimiter": delimiter, "encoding": encoding, "header": first == 1})
    if len(names) > MOST_COLUMNS:
        raise refuse("too_many_columns", f"{len(names)} columns", "line 1", f"At most {MOST_COLUMNS}.")
    kept = []
    for row, line in zip(rows[first:], lines[first:], strict=True):
        if len(row) == len(names):
            kept.append(row)
        else:
            bad.append({"where": f"line {line}", "reason": f"{len(row)} values for {len(names)} columns"})
    _refuse_bad_rows(bad, len(rows) - first)
    if not kept:
        raise refuse("no_rows", "there is a header but no row", path.name)
    return {name: column_of_text(values) for name, values in zip(names, zip(*kept, strict=True), strict=True)}


def _delimiter(text: str) -> str:
    """The one of , ; tab | that gives the same number (above one) of fields on the first lines."""
    sample = text[:65536].splitlines()[:50]
    best, most = ",", 1
    for candidate in (",", "\t", ";", "|"):
        counts = [len(row) for row in csv.reader(sample, delimiter=candidate) if row]
        common = max(set(counts), key=counts.count) if counts else 1
        if common > 1 and counts.count(common) >= 0.8 * len(counts) and common > most:
            best, most = candidate, common
    return best


def _header(row: Sequence[str]) -> tuple[list[str], int]:
    """(column names, 1 when the first row is a header): a header holds no number. Names are made unique."""
    cells = [cell.strip() for cell in row]
    if any(NUMBER.match(cell) for cell in cells):
        return [f"column_{index + 1}" for index in range(len(cells))], 0
    names: list[str] = []
    for index, cell in enumerate(cells):
        name = cell or f"column_{index + 1}"
        if name in names:
            raise refuse("duplicate_column", f'the column "{name}" stands twice', "line 1", "Rename one of them.")
        names.append(name)
    return names, 1


def column_of_text(values: Sequence[str]) -> Column:
    """Numbers when every present value is one; categories otherwise."""
    stripped = [value.strip() for value in values]
    present = [value for value in stripped if value.lower() not in MISSING]
    if all(NUMBER.match(value) for value in present) and present:
        numbers = [math.nan if value.lower() in MISSING else float(value) for value in stripped]
        return Column(np.array(numbers, np.float64))
    return categories_of([None if value.lower() in MISSING else value for value in stripped])


def _json_lines(path: Path, bad: list[dict[str, str]]) -> dict[str, Column]:
    text, _ = decode_text(path.read_bytes(), path.name)
    records: list[dict[str, Any]] = []
    total = 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        total += 1
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            bad.append({"where": f"line {number}", "reason": f"not JSON: {error}"})
            continue
        if not isinstance(record, dict):
            bad.append({"where": f"line {number}", "reason": "not an object"})
            continue
        records.append(record)
    _refuse_bad_rows(bad, total)
    names = list(dict.fromkeys(name for record in records for name in record))
    return {name: column_of_values([record.get(name) for record in records], name) for name in names}


def column_of_values(values: Sequence[Any], name: str) -> Column:
    """A column of JSON values. Raises DataError for lists and objects."""
    for row, value in enumerate(values, 1):
        if isinstance(value, list | dict):
            hint = "Flatten it into columns of its own."
            raise refuse("nested_value", f"column {name!r} holds a {type(value).__name__}", f"row {row}", hint)
    if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
        return Column(np.array([_as_float(value) for value in values], np.float64))
    shown = [
        None if value is None else str(value).lower() if isinstance(value, bool) else str(value) for value in values
    ]
    return categories_of([None if value is None or value.lower() in MISSING else value for value in shown])


def _as_float(value: float | None) -> float:
    """NaN for a gap. JSON's whole numbers have no upper limit, floats have: beyond it is infinity, as in CSV."""
    try:
        return math.nan if value is None else float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def _parquet(path: Path) -> dict[str, Column]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    hint = "Write it again, with plain columns of numbers, text or dates."
    name = ""
    try:
        table = pq.read_table(path)
        columns: dict[str, Column] = {}
        for name in table.column_names:
            if name in columns or table.column_names.count(name) > 1:
                raise refuse("duplicate_column", f'the column "{name}" stands twice', name, "Rename one of them.")
            columns[name] = _arrow_column(table.column(name), name)
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise refuse("damaged_parquet", f"not readable as Parquet: {error}", name or path.name, hint) from None
    return columns


def _arrow_column(column: Any, name: str) -> Column:
    import pyarrow as pa
    import pyarrow.types as types

    kind = column.type
    if types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if types.is_floating(kind) or types.is_integer(kind) or types.is_decimal(kind) or types.is_null(kind):
        # unsafe: 64-bit ids beyond 2^53 lose their last digits rather than stop the whole table
        return Column(_floats(column.cast(pa.float64(), safe=False)))
    if types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind):
        return column_of_values(column.to_pylist(), name)
    if types.is_date(kind) or types.is_timestamp(kind):
        stamps = column.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False)
        return Column(_floats(stamps.cast(pa.int64()).cast(pa.float64(), safe=False)) / 1e6)
    raise refuse("unsupported_column", f"columns of type {kind} cannot be read", name, "Leave it out, or convert it.")


def _floats(column: Any) -> NDArray[np.float64]:
    return np.array(column.to_numpy(), np.float64)


def _refuse_bad_rows(bad: list[dict[str, str]], total: int) -> None:
    if total and len(bad) > MOST_BAD_ROWS * total:
        hint = "Repair those lines; up to 5 % would be left out with a warning."
        raise DataError([DataProblem("bad_row", item["reason"], item["where"], hint) for item in bad[:100]])
