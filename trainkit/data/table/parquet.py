"""Parquet: from a file to columns with their formats, and from a request to rows."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import Column, categories_of, distinct_texts
from trainkit.data.errors import DataError, data_error
from trainkit.data.reasons import damage_reason
from trainkit.data.table.column_detection import Cells, DetectedColumn, detect_values
from trainkit.data.table.column_format import FIRST_SECOND, LAST_SECOND, ColumnFormat, iso_date
from trainkit.data.text import storable
from trainkit.spec.read_options import ReadOptions

HINT = "Write the file again, with columns of numbers, text or dates."


def read_parquet(path: Path, options: ReadOptions) -> tuple[dict[str, Column], list[DetectedColumn]]:
    """Return (columns by name, what was detected of each). Raises DataError."""
    table = _load(path, path.name)
    columns: dict[str, Column] = {}
    detected: list[DetectedColumn] = []
    for name in table.column_names:
        columns[storable(name)], one = _column(table.column(name), storable(name), options)
        detected.append(one)
    return columns, detected


def parquet_rows(body: bytes) -> dict[str, list[Any]]:
    """Return the values of each column of a request; NaN is a missing value, as at intake. Raises DataError."""
    import pyarrow as pa
    import pyarrow.types as types

    table = _load(io.BytesIO(body), "the body")
    rows: dict[str, list[Any]] = {}
    for name in table.column_names:
        column = _plain(table.column(name))
        if types.is_timestamp(column.type) or types.is_date(column.type):
            try:
                seconds = _seconds(column, name).tolist()
            except pa.ArrowException:
                raise _bad_date(name) from None
            values: list[Any] = [None if np.isnan(value) else iso_date(value) for value in seconds]
        else:
            values = [None if isinstance(v, float) and np.isnan(v) else v for v in column.to_pylist()]
        rows[storable(name)] = values
    return rows


def _load(source: Any, where: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(source)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise data_error("damaged_parquet", f"not readable as Parquet: {damage_reason(error)}", where, HINT) from None
    names = [storable(name) for name in table.column_names]
    for name in names:
        if names.count(name) > 1:
            raise data_error("duplicate_column", f'there are two columns "{name}"', name, "Rename one of them.")
    return table


def _plain(column: Any) -> Any:
    """Return the column without its dictionary."""
    import pyarrow.types as types

    return column.cast(column.type.value_type) if types.is_dictionary(column.type) else column


def _column(column: Any, name: str, options: ReadOptions) -> tuple[Column, DetectedColumn]:
    import pyarrow as pa
    import pyarrow.types as types

    column_options = options.column(name)
    try:
        column = _plain(column)
        kind = column.type
        if types.is_date(kind) or types.is_timestamp(kind):
            return _dates(column, name, column_options.type)
        number = types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind)
        if number or (types.is_integer(kind) and column_options.type not in ("category", "date")):
            # unsafe: what a float cannot hold is looked for below, and does not fail the whole table
            values = np.array(column.cast(pa.float64(), safe=False).to_numpy(), np.float64)
            if column_options.type in (None, "number") and (number or column_options.type or _exact(column, values)):
                as_number = ColumnFormat(name=name, type="number", typed=True)
                return Column(values), DetectedColumn(as_number, _gaps(values), chosen=column_options.type is not None)
        known = types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind)
        if not (known or number or types.is_integer(kind)):
            message, hint = f"columns of type {kind} are not supported", "Remove or convert the column."
            raise data_error("unsupported_column", message, name, hint)
        coded = column.combine_chunks().dictionary_encode()
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.combine_chunks()
        words, codes = coded.dictionary.to_pylist(), coded.indices.fill_null(len(coded.dictionary)).to_numpy()
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise data_error("damaged_parquet", f"not readable as Parquet: {damage_reason(error)}", name, HINT) from None
    counts = np.bincount(codes, minlength=len(words) + 1)
    words = [None if isinstance(word, float) and np.isnan(word) else word for word in words]
    cells = [(word, int(count)) for word, count in zip([*words, None], counts.tolist(), strict=True) if count]
    detected = detect_values(name, cells, column_options)
    return read_distinct(detected.format, [*words, None], codes), detected


def read_distinct(column: ColumnFormat, distinct: list[Any], codes: NDArray[Any]) -> Column:
    """Return the column whose row i holds `distinct[codes[i]]`, each different value read once."""
    read = column.read_all(distinct)
    if column.type in ("number", "date"):
        values = np.array([np.nan if value is None else value for value in read], np.float64)[codes]
        texts = None if column.typed and column.type == "number" else distinct_texts(read, distinct)
        return Column(values, texts=texts, is_date=column.type == "date")
    names = categories_of([None if value is None else str(value) for value in read])
    return Column(names.values[codes], names.categories)


def _exact(column: Any, values: NDArray[np.float64]) -> bool:
    """Return whether float64 holds every whole number of the column."""
    import pyarrow.compute as pc

    present = column.drop_null()
    if not len(present):
        return True
    bounds = pc.min_max(present).as_py()
    if max(abs(bounds["min"]), abs(bounds["max"])) <= 2**53:
        return True
    return all(int(float(value)) == value for value in pc.unique(present).to_pylist())


def _bad_date(name: str) -> DataError:
    return data_error("bad_date", "a date lies outside the years 1 to 9999", f'column "{name}"', HINT)


def _seconds(column: Any, name: str) -> NDArray[np.float64]:
    """Return dates and times as seconds since 1970, NaN where there is none."""
    import pyarrow as pa

    stamps = column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False)
    seconds = np.array(stamps.cast(pa.int64()).cast(pa.float64(), safe=False).to_numpy(), np.float64) / 1e6
    if ((seconds < FIRST_SECOND) | (seconds > LAST_SECOND)).any():
        raise _bad_date(name)
    return seconds


def _dates(column: Any, name: str, chosen_type: str | None) -> tuple[Column, DetectedColumn]:
    seconds = _seconds(column, name)
    distinct, codes = np.unique(seconds, return_inverse=True)
    texts: list[str | None] = [None if np.isnan(value) else iso_date(value) for value in distinct.tolist()]
    kind = ColumnFormat(name=name, type="category" if chosen_type == "category" else "date", typed=True)
    if chosen_type not in (None, "category", "date"):
        raise data_error(
            "wrong_type", f"the values are dates, not {chosen_type}s", f'column "{name}"', "Read them as a date."
        )
    detected = DetectedColumn(kind, _gaps(seconds), chosen=chosen_type is not None)
    return read_distinct(kind, list(texts), codes.reshape(-1)), detected


def _gaps(values: NDArray[np.float64]) -> Cells:
    """Return the counts of present and missing values, which is all that a report needs of a typed column."""
    missing = int(np.isnan(values).sum())
    return [cell for cell in ((0.0, len(values) - missing), (None, missing)) if cell[1]]
