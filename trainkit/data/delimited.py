"""CSV and similar files: delimiter, encoding, header and decimal comma are detected. Bad rows are reported by line."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainkit.data.columns import COMMA_NUMBER, MISSING, NUMBER, check_bad_rows, column_of_text
from trainkit.data.dataset import Column
from trainkit.data.errors import data_error
from trainkit.spec.read_options import DEFAULT_READ_OPTIONS, ReadOptions

DELIMITERS = (",", "\t", ";", "|")
MOST_COLUMNS = 100_000
FIELD_LIMIT = 10 * 2**20
SNIFFED_ROWS = 50


def read_delimited(
    path: Path, bad: list[dict[str, str]], details: dict[str, Any], reading: ReadOptions = DEFAULT_READ_OPTIONS
) -> dict[str, Column]:
    """Return columns by name. Rows of a wrong length are appended to `bad`; more than 5 % of them raise DataError."""
    text, encoding = decode_text(path.read_bytes(), path.name, reading.encoding)
    delimiter = reading.separator or _delimiter(text)
    lines = list(io.StringIO(text, newline=""))
    rows, spans = _rows(lines, delimiter)
    if not rows:
        raise data_error("empty", "the file holds no values", path.name)
    decimal_comma = delimiter == ";"
    names, first = _header(rows, decimal_comma=decimal_comma, declared=reading.header)
    details.update({"delimiter": delimiter, "encoding": encoding, "header": first == 1})
    if len(names) > MOST_COLUMNS:
        raise data_error("too_many_columns", f"{len(names)} columns", "line 1", f"At most {MOST_COLUMNS}.")
    kept, lost = [], 0
    for row, (start, end) in zip(rows[first:], spans[first:], strict=True):
        stray = end > start and _stray_quote(lines[start - 1 : end], delimiter)
        if len(row) == len(names) and not stray:
            kept.append(row)
            continue
        # a quote that is closed too late joins several rows: all their lines are lost
        lost += end - start + 1
        counted = f"{len(row)} values for {len(names)} columns"
        reason = f"a quote opens on this line and is closed in the wrong place, on line {end}" if stray else counted
        bad.append({"where": f"line {start}", "reason": reason})
    check_bad_rows(bad, lost, len(kept) + lost)
    if not kept:
        raise data_error("no_rows", "the file has a header but no rows", path.name)
    cells = zip(*kept, strict=True)
    return {
        name: column_of_text(values, decimal_comma=decimal_comma) for name, values in zip(names, cells, strict=True)
    }


def decode_text(raw: bytes, where: str, declared: str | None = None) -> tuple[str, str]:
    """(text, encoding): what is `said`, else a byte-order mark, else UTF-8, else Windows-1252.

    Raises DataError for binary data, and for bytes that are not of the said encoding.
    """
    if declared is not None:
        try:
            return raw.decode(declared), declared
        except UnicodeError as error:
            line = raw[: getattr(error, "start", 0)].count(b"\n") + 1
            hint = "Leave out `encoding`: it is detected."
            raise data_error(
                "bad_encoding", f"not {declared}: {getattr(error, 'reason', error)}", f"line {line}", hint
            ) from None
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if raw.startswith(mark):
            try:
                return raw.decode(encoding), encoding
            except UnicodeDecodeError as error:
                raise data_error("bad_encoding", f"not {encoding}: {error.reason}", where) from None
    if b"\x00" in raw:
        line = raw[: raw.index(b"\x00")].count(b"\n") + 1
        raise data_error(
            "binary", "the file holds NUL bytes, so it is not text", f"line {line}", "Export it as CSV again."
        )
    try:
        return raw.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace"), "cp1252"


def _rows(lines: Sequence[str], delimiter: str) -> tuple[list[list[str]], list[tuple[int, int]]]:
    """Return (non-empty rows, first and last line of each). Raises DataError for a quote that is never closed."""
    csv.field_size_limit(FIELD_LIMIT)
    reader = csv.reader(lines, delimiter=delimiter, strict=False)
    rows: list[list[str]] = []
    spans: list[tuple[int, int]] = []
    before = 0
    hint = "Close the quote, or double it if it is part of the text."
    try:
        for row in reader:
            if row and any(cell.strip() for cell in row):
                rows.append(row)
                spans.append((before + 1, reader.line_num))  # quoted values may span lines
            before = reader.line_num
    except csv.Error as error:
        raise data_error("bad_csv", str(error), f"line {before + 1}", hint) from None
    if spans and spans[-1][0] < spans[-1][1] and "unexpected end" in _stray_quote(lines[spans[-1][0] - 1 :], delimiter):
        message = "a quote that opens in this row is never closed"
        raise data_error("open_quote", message, f"line {spans[-1][0]}", hint)
    return rows, spans


def _stray_quote(lines: Sequence[str], delimiter: str) -> str:
    """Return the error of the strict CSV reader for one row; the lenient reader accepts stray quotes."""
    try:
        list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error as error:
        return str(error)
    return ""


def _delimiter(text: str) -> str:
    """Return the delimiter (, tab ; |) with the most fields, where the first row and most others have the same number."""
    sample = text[:65536].splitlines()[:SNIFFED_ROWS]
    best, most = ",", 1
    for candidate in DELIMITERS:
        counts = [len(row) for row in csv.reader(sample, delimiter=candidate) if row]
        common = max(set(counts), key=counts.count) if counts else 1
        # the first row must agree, else the decimal commas of a ; file count as delimiters
        if common > most and counts[0] == common and counts.count(common) >= 0.8 * len(counts):
            best, most = candidate, common
    return best


def _header(rows: Sequence[Sequence[str]], *, decimal_comma: bool, declared: bool | None) -> tuple[list[str], int]:
    """Return (column names, 1 if the first row is a header else 0).

    It is a header if a column has a word above numbers only, or if no cell of it is a number. Raises DataError for a
    repeated name.
    """

    def is_number(cell: str) -> bool:
        return bool(NUMBER.match(cell) or (decimal_comma and COMMA_NUMBER.match(cell)))

    cells = [cell.strip() for cell in rows[0]]
    below = [row for row in rows[1:SNIFFED_ROWS] if len(row) == len(cells)]
    if declared is False or (
        declared is None
        and any(map(is_number, cells))
        and not any(
            below
            and cell.lower() not in MISSING
            and not is_number(cell)
            and all(is_number(row[i].strip()) for row in below)
            for i, cell in enumerate(cells)
        )
    ):
        return [f"column_{index + 1}" for index in range(len(cells))], 0
    names: dict[str, None] = {}
    for index, cell in enumerate(cells):
        name = cell or f"column_{index + 1}"
        if name in names:
            raise data_error("duplicate_column", f'there are two columns "{name}"', "line 1", "Rename one of them.")
        names[name] = None
    return list(names), 1
