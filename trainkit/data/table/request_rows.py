"""The rows of a request to predict, read as the training file was: delimited text, JSON, JSON Lines, Parquet or Excel."""

from __future__ import annotations

import gzip
import io
import tempfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from trainkit.data import archive
from trainkit.data.errors import DataError, InputError, InputProblem, data_error
from trainkit.data.file_types import FileType, office_type, refuse_other_types, wrong_type
from trainkit.data.reasons import damage_reason
from trainkit.data.table.column_format import ColumnFormat, iso_date, parse_date
from trainkit.data.table.delimited import DelimitedRow, column_names, read_rows
from trainkit.data.table.dialect import DELIMITERS, SEPARATOR_LINE, Dialect, decode_request
from trainkit.data.table.excel import is_workbook, read_sheet
from trainkit.data.table.json_rows import JSON_ARRAY, fields_of, json_lines, json_list
from trainkit.data.table.parquet import parquet_rows
from trainkit.data.table.table_format import TableFormat
from trainkit.data.text import storable

GZIP = b"\x1f\x8b"
MOST_UNPACKED_BYTES = 256 * 2**20
TSV_TYPES = ("text/tab-separated-values", "text/tsv")
JSON_LINES_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")
PARQUET_TYPES = ("application/vnd.apache.parquet", "application/x-parquet", "application/parquet")
EXCEL_TYPES = ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",)
OTHER_TYPES = ("text/csv", "text/plain", "application/octet-stream")
TABLE_TYPES = (*OTHER_TYPES, *TSV_TYPES, *JSON_LINES_TYPES, *PARQUET_TYPES, *EXCEL_TYPES)
"""Media types of requests that hold a table's rows."""


@dataclass(frozen=True, slots=True)
class TableRows:
    """Cells of n rows by column, as they came: not yet numbers or categories."""

    columns: dict[str, list[Any]]
    count: int
    places: Sequence[str] = field(default=())
    """Where each row stands in a text, such as "line 5"; empty where rows have no lines."""
    numbers: Sequence[int] = field(default=())
    """The number of each row in what was sent, from 0; empty where all of its rows are here."""

    def number(self, row: int) -> int:
        """Return the number of a row in what was sent, as a JSON pointer has it."""
        return int(self.numbers[row]) if len(self.numbers) else row

    def place(self, row: int) -> str:
        """Return how a sentence names a row: by its number in what was sent, from 0, and by its line."""
        return f"row {self.number(row)}" + (f" ({self.places[row]})" if self.places else "")

    def take(self, rows: Sequence[int]) -> TableRows:
        """Return some of the rows, which keep their numbers."""
        columns = {name: [cells[row] for row in rows] for name, cells in self.columns.items()}
        places = [self.places[row] for row in rows] if self.places else ()
        return TableRows(columns, len(rows), places, [self.number(row) for row in rows])

    def without(self, names: Collection[str]) -> TableRows:
        """Return the same rows without some columns."""
        kept = {name: cells for name, cells in self.columns.items() if name not in names}
        return TableRows(kept, self.count, self.places, self.numbers)

    @classmethod
    def from_records(cls, records: Sequence[Mapping[str, Any]], places: Sequence[str] = ()) -> TableRows:
        """Rows of objects; a field that an object leaves out is ABSENT."""
        columns = {storable(str(name)): values for name, values in fields_of(records).items()}
        return cls(columns, len(records), places)


def read_request(
    table_format: TableFormat, body: bytes, media_type: str, features: Sequence[str], *, charset: str | None = None
) -> TableRows:
    """Read the rows of a request: delimited text, JSON Lines, one JSON list of objects, Parquet, or Excel; also as gzip.

    Text is read in the dialect of the training file. Another delimiter is taken where only that one gives the
    columns' names. Without a header in the file, a request may leave the header out as well, and then gives all
    columns of the file or the `features` in their order. Raises InputError.
    """
    try:
        if body.startswith(GZIP):
            body = _unpacked(body)
        if body.startswith(b"PAR1"):
            columns = parquet_rows(body)
            return TableRows(columns, len(next(iter(columns.values()), [])))
        if body.startswith(b"PK\x03\x04"):
            return _workbook(table_format, body, features)
        encoded = charset is not None or table_format.dialect.encoding.lower().startswith("utf-16")
        refuse_other_types(body[:4096], "the body", encoded=encoded)
        text = decode_request(body, table_format.dialect.encoding, charset)
        is_list = text.lstrip()[:1] == "[" and media_type not in ("text/csv", *TSV_TYPES)
        if is_list and (media_type not in JSON_LINES_TYPES or JSON_ARRAY.match(text)):
            return TableRows.from_records(json_list(text, "the body"))
        if media_type in JSON_LINES_TYPES or text.lstrip()[:1] == "{":
            bad: list[dict[str, str]] = []
            records, lines = json_lines(text, bad)
            if bad:
                raise InputError([InputProblem("invalid_json", f"{bad[0]['where']}: {bad[0]['reason']}")])
            return TableRows.from_records(records, [f"line {line}" for line in lines])
        return _delimited(table_format, text, media_type, features)
    except DataError as error:
        raise _as_input_error(error) from None


def _as_input_error(error: DataError) -> InputError:
    first = error.problems[0]
    message = f"{first.where}: {first.message}" if first.where else first.message
    return InputError([InputProblem("unreadable_table", message, hint=first.hint)])


def _workbook(table_format: TableFormat, body: bytes, features: Sequence[str]) -> TableRows:
    """Read the sheet that the training file had, or the only one. Dates are given in the way their column reads them."""
    dialect = table_format.dialect
    known = {*table_format.names, *features}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "the body"
        path.write_bytes(body)
        if not archive.is_archive(path):
            message = "the body begins like an .xlsx or zip, but cannot be read as one"
            raise data_error("damaged_archive", message, "", "Check that all of the file was sent.")
        if not is_workbook(path):
            found = office_type(archive.names(path)) or FileType("a zip archive", "Send the table itself.")
            raise wrong_type(found, "the body")
        sheet = read_sheet(
            path,
            sheet=dialect.sheet,
            header=dialect.header,
            known=features,
            dates_as_text=False,
            skip_rows=dialect.skip_rows,
        )
    columns = sheet.columns
    if not sheet.header:
        by_width = {len(features): list(features), len(table_format.names): table_format.names}
        given = by_width.get(len(columns), [])
        if not given:
            message = f"{len(columns)} values for {len(features)} columns"
            raise InputError([InputProblem("wrong_width", message, row=0, hint=_columns_hint(features))])
        columns = dict(zip(given, columns.values(), strict=True))
    elif not known.intersection(columns):
        message = f"the first row names no column of the model: {', '.join(list(columns)[:10])}"
        raise InputError([InputProblem("missing_header", message, hint=_columns_hint(features))])
    cells = {
        name: [_date_text(value, table_format.column(name)) for value in values] for name, values in columns.items()
    }
    return TableRows(cells, len(sheet.rows), [f"sheet row {number}" for number in sheet.rows])


def _date_text(value: Any, column: ColumnFormat | None) -> Any:
    """Return a date as the ISO 8601 text that intake gives, or as it is for a column that writes dates in another way."""
    if not isinstance(value, date) or (column is not None and column.date_format is not None):
        return value
    seconds = parse_date(value)
    return value.isoformat() if seconds is None else iso_date(seconds)


def _delimited(table_format: TableFormat, text: str, media_type: str, features: Sequence[str]) -> TableRows:
    known = {*table_format.names, *features}
    table = _request_table(table_format, text, media_type, known, {len(features), len(table_format.names)})
    rows = [row.cells for row in table]
    names: list[str] = []
    first = 0
    if rows and (table_format.dialect.header or known.intersection(rows[0]) >= set(features)):
        names, first = [storable(name) for name in column_names(rows[0], header=True)], 1
        if not known.intersection(names):
            message = f"the first line names no column of the model: {', '.join(names[:10])}"
            raise InputError([InputProblem("missing_header", message, hint=_columns_hint(features))])
    elif rows:
        by_width = {len(features): list(features), len(table_format.names): table_format.names}
        names = by_width.get(len(rows[0]), [])
        if not names:
            message = f"{len(rows[0])} values for {len(features)} columns"
            raise InputError([InputProblem("wrong_width", message, row=0, hint=_columns_hint(features))])
    if len(rows) <= first:
        hint = "Send one line for each sample" + (", below the line with the column names." if names else ".")
        raise InputError([InputProblem("no_rows", "the body holds no rows", hint=hint)])
    places = [f"line {row.start}" for row in table[first:]]
    parsed = TableRows({}, len(places), places)
    problems = [
        InputProblem("bad_row", f"{parsed.place(number)}: {reason}", row=number)
        for number, row in enumerate(table[first:])
        if (reason := row.misread(len(names)))
    ]
    if problems:
        raise InputError(problems)
    cells = zip(*rows[first:], strict=True)
    # an empty cell is a missing value in every text, also for the columns of a typed file
    columns = {name: [cell or None for cell in column] for name, column in zip(names, cells, strict=True)}
    return TableRows(columns, len(places), places)


def _request_table(
    table_format: TableFormat, text: str, media_type: str, known: set[str], widths: set[int]
) -> list[DelimitedRow]:
    """Read the text with the delimiter that gives most of the known names, without the titles above it if it has them."""
    dialect = table_format.dialect
    delimiters = _delimiters(dialect, text, media_type)

    def read(skip_rows: int) -> list[DelimitedRow]:
        chosen = dialect.model_copy(update={"skip_rows": skip_rows})
        return max((_parsed(chosen, text, delimiter) for delimiter in delimiters), key=lambda one: _names(one, known))

    if not dialect.skip_rows:
        return read(0)
    try:
        whole = read(0)
    except DataError:  # the titles are no rows
        return read(dialect.skip_rows)
    below = read(dialect.skip_rows)
    if dialect.header:
        return below if _names(below, known) > _names(whole, known) else whole
    return whole if whole and len(whole[0].cells) in widths else below


def _names(rows: Sequence[DelimitedRow], known: set[str]) -> int:
    """Return how many known names are in the first row."""
    return len(known.intersection(rows[0].cells)) if rows else 0


def _delimiters(dialect: Dialect, text: str, media_type: str) -> list[str]:
    if line := SEPARATOR_LINE.match(text):
        return [line["delimiter"]]
    if media_type in TSV_TYPES:
        return ["\t"]
    stored = dialect.delimiter
    return [stored, *(delimiter for delimiter in DELIMITERS if delimiter != stored)]


def _parsed(dialect: Dialect, text: str, delimiter: str) -> list[DelimitedRow]:
    try:
        return read_rows(text, dialect.model_copy(update={"delimiter": delimiter}))
    except DataError:
        if delimiter == dialect.delimiter:
            raise
        return []


def records_of(x: Any, features: Sequence[str], *, strict: bool = False) -> TableRows:
    """Return the rows that a Python caller or a JSON document gives: one row or a list of rows.

    A row is an object of column name to value, or a list of values in the order of `features`. `strict`, for JSON: each
    entry is a row of its own, and NaN is no missing value but a mistake. Raises InputError.
    """
    if isinstance(x, TableRows):
        return x
    rows = [x] if isinstance(x, Mapping) else list(x)
    if rows and not strict and not any(_is_row(row) for row in rows):
        rows = [rows]  # one row, as a list of its values
    problems = []
    records: list[Mapping[str, Any]] = []
    for number, row in enumerate(rows):
        if isinstance(row, Mapping):
            records.append(row)
        elif not _is_row(row):
            message = f"row {number}: must be an object of column name to value"
            problems.append(InputProblem("not_a_row", message, row=number, hint=_columns_hint(features)))
        elif len(row) != len(features):
            message = f"row {number} has {len(row)} values for {len(features)} columns: {', '.join(features)}"
            problems.append(InputProblem("wrong_width", message, row=number, hint=_columns_hint(features)))
        else:
            records.append(dict(zip(features, row, strict=True)))
    if problems:
        raise InputError(problems)
    try:
        return TableRows.from_records(
            [{name: _plain(value, strict) for name, value in record.items()} for record in records]
        )
    except DataError as error:
        raise _as_input_error(error) from None


def _is_row(row: Any) -> bool:
    return isinstance(row, Mapping) or (hasattr(row, "__len__") and not isinstance(row, str | bytes))


def _plain(value: Any, strict: bool) -> Any:
    """Return a NumPy scalar as Python's own, and NaN as None unless `strict`."""
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
    return None if not strict and isinstance(value, float) and value != value else value


def _columns_hint(features: Sequence[str]) -> str:
    return f"Columns: {', '.join(list(features)[:30])}{' ...' if len(features) > 30 else ''}."


def _unpacked(body: bytes) -> bytes:
    """Unpack a gzip body, up to a limit. Raises InputError."""
    try:
        with gzip.open(io.BytesIO(body)) as file:
            unpacked = file.read(MOST_UNPACKED_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            [InputProblem("damaged_archive", f"the gzip body cannot be unpacked: {damage_reason(error)}")]
        ) from None
    if len(unpacked) > MOST_UNPACKED_BYTES:
        message = f"the body unpacks to more than {MOST_UNPACKED_BYTES // 2**20} MiB"
        raise InputError([InputProblem("too_large", message, hint="Send fewer rows.")])
    return unpacked
