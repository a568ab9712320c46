"""Tables: CSV and similar files, Parquet, JSON Lines or one JSON list of objects. Bad rows are reported by line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.columns import check_bad_rows, column_of_values
from trainkit.data.dataset import PART_NAMES, Column, Dataset, TableInputs, make_dataset
from trainkit.data.delimited import decode_text, read_delimited
from trainkit.data.errors import DataError, data_error
from trainkit.data.text import storable
from trainkit.spec.problems import nearest
from trainkit.spec.read_options import DEFAULT_READ_OPTIONS, ReadOptions

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
JSON_ARRAY = re.compile(rb"^\s*\[\s*\{")


def read_table(
    path: Path, *, target: str | None = None, reading: ReadOptions = DEFAULT_READ_OPTIONS
) -> tuple[Dataset, dict[str, Any]]:
    """Return (dataset, details for the report). Raises DataError naming file, row or column."""
    columns, split, details = read_columns(path, target, reading)
    return make_dataset("table", TableInputs(columns), None, None, split, target=target), details


def read_columns(
    path: Path, target: str | None, reading: ReadOptions = DEFAULT_READ_OPTIONS
) -> tuple[dict[str, Column], NDArray[np.int8] | None, dict[str, Any]]:
    """Return (columns, predefined part of each row or None, details). Raises DataError if `target` is not a column."""
    with path.open("rb") as file:
        start = file.read(4096)
    bad: list[dict[str, str]] = []
    details: dict[str, Any] = {"unreadable": bad}
    if start[:4] == b"PAR1":
        columns = _parquet(path)
    elif JSON_ARRAY.match(start):
        columns = _json_array(path)
    elif start.lstrip()[:1] == b"{":
        columns = _json_lines(path, bad)
    else:
        columns = read_delimited(path, bad, details, reading)
    if not columns:
        raise data_error("no_columns", "the table has no columns", path.name)
    if target is not None and target not in columns:
        hint = " ".join(
            part for part in (nearest(target, columns), f"Columns: {', '.join(list(columns)[:30])}.") if part
        )
        raise data_error("missing_column", f'there is no column "{target}"', "target", hint)
    split = None
    if named := split_column(columns, target):
        details["split_column"] = named
        split = parts_of(columns.pop(named))
    return columns, split, details


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


def _json_lines(path: Path, bad: list[dict[str, str]]) -> dict[str, Column]:
    text, _ = decode_text(path.read_bytes(), path.name)
    records: list[dict[str, Any]] = []
    total = 0
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        total += 1
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            bad.append({"where": f"line {number}", "reason": f"not JSON: {error}"})
            continue
        if not isinstance(record, dict):
            bad.append({"where": f"line {number}", "reason": "not a JSON object"})
            continue
        records.append(record)
    check_bad_rows(bad, len(bad), total)
    return _of_records(records)


def _json_array(path: Path) -> dict[str, Column]:
    text, _ = decode_text(path.read_bytes(), path.name)
    try:
        records = json.loads(text)
    except (ValueError, RecursionError) as error:
        hint = "Write one list of objects, or one object on each line."
        raise data_error("bad_json", f"not JSON: {error}", path.name, hint) from None
    for row, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise data_error("bad_json", "not a JSON object", f"row {row}", "Each entry of the list must be one row.")
    return _of_records(records)


def _of_records(records: list[dict[str, Any]]) -> dict[str, Column]:
    names = list(dict.fromkeys(name for record in records for name in record))
    return {storable(name): column_of_values([record.get(name) for record in records], name) for name in names}


def _parquet(path: Path) -> dict[str, Column]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    hint = "Write the file again, with columns of numbers, text or dates."
    name = ""
    try:
        table = pq.read_table(path)
        columns: dict[str, Column] = {}
        for name in table.column_names:
            if name in columns or table.column_names.count(name) > 1:
                raise data_error("duplicate_column", f'there are two columns "{name}"', name, "Rename one of them.")
            columns[storable(name)] = _arrow_column(table.column(name), name)
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise data_error("damaged_parquet", f"not readable as Parquet: {error}", name or path.name, hint) from None
    return columns


def _arrow_column(column: Any, name: str) -> Column:
    import pyarrow as pa
    import pyarrow.types as types

    kind = column.type
    if types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if types.is_floating(kind) or types.is_integer(kind) or types.is_decimal(kind) or types.is_null(kind):
        # unsafe: 64-bit integers beyond 2^53 lose digits instead of failing the whole table
        return Column(_floats(column.cast(pa.float64(), safe=False)))
    if types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind):
        return column_of_values(column.to_pylist(), name)
    if types.is_date(kind) or types.is_timestamp(kind):
        stamps = column.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False)
        return Column(_floats(stamps.cast(pa.int64()).cast(pa.float64(), safe=False)) / 1e6)
    raise data_error(
        "unsupported_column",
        f"columns of type {kind} are not supported",
        name,
        "Remove or convert the column.",
    )


def _floats(column: Any) -> NDArray[np.float64]:
    return np.array(column.to_numpy(), np.float64)
