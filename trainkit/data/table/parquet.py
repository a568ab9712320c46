"""Parquet: from a file to columns with their formats, and from a request to rows."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import Column, categories_of, distinct_texts
from trainkit.data.errors import DataError, data_error
from trainkit.data.limits import check_cells, check_columns, check_expansion, check_memory, check_names
from trainkit.data.reasons import damage_reason
from trainkit.data.table.column_detection import Cells, DetectedColumn, detect_values
from trainkit.data.table.column_format import FIRST_SECOND, LAST_SECOND, ColumnFormat, iso_date
from trainkit.data.text import storable
from trainkit.spec.read_options import ReadOptions

HINT = "Write the file again, with columns of numbers, text or dates."
CELLS_AT_ONCE, ROWS_AT_ONCE = 2**20, 2**16
REPEATING_ROWS = 256
"""Rows read at once where values repeat the start of the one before (DELTA_BYTE_ARRAY): no size in the file bounds them."""
COMPACTED_FROM = 16 * 2**20
"""Bytes of batches from which on their dictionaries are joined, before the sum counts."""


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
        elif types.is_dictionary(column.type):
            words, codes = _coded(column)  # one text for all of its rows
            values = [*map([*words, None].__getitem__, codes.tolist())]
        else:
            values = [None if isinstance(v, float) and np.isnan(v) else v for v in column.to_pylist()]
        rows[storable(name)] = values
    return rows


def _load(source: Any, where: str) -> Any:
    """Read the table in batches, text as codes of its different values; what its metadata announce is checked before."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(source) as file:
            metadata, schema = file.metadata, file.schema_arrow
            _check_columns(schema)
            check_cells(metadata.num_rows, metadata.num_columns, where)
            text, repeating = _check_pages(metadata, where)
            texts = {place for place, kind in enumerate(schema.types) if _is_text(kind)}
        if not isinstance(source, Path):
            source.seek(0)
        with pq.ParquetFile(source, read_dictionary=text) as file:
            rows = REPEATING_ROWS if repeating else min(ROWS_AT_ONCE, max(1, CELLS_AT_ONCE // max(1, len(schema))))
            return _joined(file.iter_batches(rows, use_threads=False), file.schema_arrow, texts, where)
    except DataError:
        raise
    except pa.ArrowMemoryError:
        raise MemoryError from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise data_error("damaged_parquet", f"not readable as Parquet: {damage_reason(error)}", where, HINT) from None


def _check_columns(schema: Any) -> None:
    """Raise DataError for a name that is there twice, and for types that are not read."""
    check_columns(len(schema.names), "")
    names = Counter(storable(name) for name in schema.names)
    check_names(names, "")
    for name, count in names.items():
        if count > 1:
            raise data_error("duplicate_column", f'there are two columns "{name}"', name, "Rename one of them.")
    for field in schema:
        if not _is_known(field.type):
            message, hint = f"columns of type {field.type} are not supported", "Remove or convert the column."
            raise data_error("unsupported_column", message, storable(field.name), hint)


def _is_known(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    number = types.is_floating(kind) or types.is_decimal(kind) or types.is_integer(kind) or types.is_null(kind)
    other = types.is_boolean(kind) or types.is_date(kind) or types.is_timestamp(kind)
    return bool(number or other or _is_text(kind))


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _check_pages(metadata: Any, where: str) -> tuple[list[str], bool]:
    """Return (the columns of text that can be read as codes, whether others repeat the start of the value before).

    Raises DataError for pages of too many bytes.
    """
    size, text, repeating = 0, dict[str, None](), set[str]()
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for place in range(row_group.num_columns):
            column = row_group.column(place)
            size += max(0, column.total_uncompressed_size)
            if column.physical_type == "BYTE_ARRAY":
                text[column.path_in_schema] = None
                if "DELTA_BYTE_ARRAY" in column.encodings:
                    repeating.add(column.path_in_schema)
    check_expansion(size, where, "the unpacked pages")
    check_memory(2 * size, where, "the unpacked pages")
    return [name for name in text if name not in repeating], bool(repeating)


def _joined(batches: Any, schema: Any, texts: Collection[int], where: str) -> Any:
    """Return the table of the batches; its bytes are counted as they come. Raises DataError when they are too many."""
    import pyarrow as pa

    parts: list[Any] = []
    held, compacted = 0, 0
    for batch in batches:
        columns = [_as_codes(column) if place in texts else column for place, column in enumerate(batch.columns)]
        parts.append(pa.RecordBatch.from_arrays(columns, names=batch.schema.names))
        held += parts[-1].nbytes
        if held > max(COMPACTED_FROM, 2 * compacted):
            joined = _compacted(parts, where)
            parts, held = joined.to_batches(), joined.get_total_buffer_size()
            compacted = held
    return _compacted(parts, where) if parts else pa.Table.from_batches([], schema)


def _compacted(parts: list[Any], where: str) -> Any:
    """Return the table of batches, each text once. Raises DataError for too many bytes."""
    import pyarrow as pa

    table = pa.Table.from_batches(parts).unify_dictionaries()
    held = table.get_total_buffer_size()
    check_expansion(held, where, "the values")
    check_memory(2 * held, where, "the values")
    return table


def _as_codes(column: Any) -> Any:
    import pyarrow.types as types

    return column if types.is_dictionary(column.type) else column.dictionary_encode()


def _plain(column: Any) -> Any:
    """Return the column without its dictionary, unless that is one of text, which is long where it repeats."""
    import pyarrow.types as types

    kind = column.type
    if not types.is_dictionary(kind) or types.is_string(kind.value_type) or types.is_large_string(kind.value_type):
        return column
    return column.cast(kind.value_type)


def _coded(column: Any) -> tuple[list[Any], NDArray[Any]]:
    """Return (the different values, for each row the index of its value; their number where there is none)."""
    import pyarrow as pa
    import pyarrow.types as types

    coded = column.combine_chunks()
    coded = coded if types.is_dictionary(coded.type) else coded.dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.unify_dictionaries().combine_chunks()
        coded = coded.chunk(0) if isinstance(coded, pa.ChunkedArray) else coded
    codes = coded.indices.fill_null(len(coded.dictionary)).to_numpy()
    # a file's own dictionary may hold values that no row has, and one value twice
    used = np.flatnonzero(np.bincount(codes, minlength=len(coded.dictionary) + 1)[:-1])
    places: dict[Any, int] = {}
    renumbered = np.full(len(coded.dictionary) + 1, -1, np.int64)
    for index, value in zip(used.tolist(), coded.dictionary.take(pa.array(used)).to_pylist(), strict=True):
        renumbered[index] = places.setdefault(value, len(places))
    renumbered[renumbered < 0] = len(places)
    return list(places), renumbered[codes]


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
        words, codes = _coded(column)
    except DataError:
        raise
    except pa.ArrowMemoryError:
        raise MemoryError from None
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
