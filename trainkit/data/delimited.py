"""CSV and its kin: delimiter, encoding, header and decimal comma are told from the text. Bad rows are named by line."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainkit.data.columns import COMMA_NUMBER, MISSING, NUMBER, column_of_text, refuse_bad_rows
from trainkit.data.dataset import Column
from trainkit.data.errors import refuse
from trainkit.spec.read_options import NOTHING_SAID, Reading

DELIMITERS = (",", "\t", ";", "|")
MOST_COLUMNS = 100_000
FIELD_LIMIT = 10 * 2**20
LOOKED_AT = 50


def read_delimited(
    path: Path, bad: list[dict[str, str]], details: dict[str, Any], reading: Reading = NOTHING_SAID
) -> dict[str, Column]:
    """Columns by name. Rows of another length than the header's go to `bad`; more than 5 % of them are a DataError."""
    text, encoding = decode_text(path.read_bytes(), path.name, reading.encoding)
    delimiter = reading.separator or _delimiter(text)
    lines = list(io.StringIO(text, newline=""))
    rows, spans = _rows(lines, delimiter)
    if not rows:
        raise refuse("empty", "the file holds no values", path.name)
    decimal_comma = delimiter == ";"
    names, first = _header(rows, decimal_comma=decimal_comma, said=reading.header)
    details.update({"delimiter": delimiter, "encoding": encoding, "header": first == 1})
    if len(names) > MOST_COLUMNS:
        raise refuse("too_many_columns", f"{len(names)} columns", "line 1", f"At most {MOST_COLUMNS}.")
    kept, lost = [], 0
    for row, (start, end) in zip(rows[first:], spans[first:], strict=True):
        stray = end > start and _stray_quote(lines[start - 1 : end], delimiter)
        if len(row) == len(names) and not stray:
            kept.append(row)
            continue
        # a quote that is closed too late swallows whole rows: each of its lines is lost
        lost += end - start + 1
        counted = f"{len(row)} values for {len(names)} columns"
        reason = f"a quote opens here and is closed in the wrong place, on line {end}" if stray else counted
        bad.append({"where": f"line {start}", "reason": reason})
    refuse_bad_rows(bad, lost, len(kept) + lost)
    if not kept:
        raise refuse("no_rows", "there is a header but no row", path.name)
    cells = zip(*kept, strict=True)
    return {
        name: column_of_text(values, decimal_comma=decimal_comma) for name, values in zip(names, cells, strict=True)
    }


def decode_text(raw: bytes, where: str, said: str | None = None) -> tuple[str, str]:
    """(text, encoding): what is `said`, else a byte-order mark, else UTF-8, else Windows-1252.

    Raises DataError for binary data, and for bytes that are not of the said encoding.
    """
    if said is not None:
        try:
            return raw.decode(said), said
        except UnicodeError as error:
            line = raw[: getattr(error, "start", 0)].count(b"\n") + 1
            hint = "Leave `encoding` out: it is found out."
            raise refuse(
                "bad_encoding", f"not {said}: {getattr(error, 'reason', error)}", f"line {line}", hint
            ) from None
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


def _rows(lines: Sequence[str], delimiter: str) -> tuple[list[list[str]], list[tuple[int, int]]]:
    """(rows that hold anything, first and last line of each). Raises DataError for a quote that is never closed."""
    csv.field_size_limit(FIELD_LIMIT)
    reader = csv.reader(lines, delimiter=delimiter, strict=False)
    rows: list[list[str]] = []
    spans: list[tuple[int, int]] = []
    before = 0
    hint = "Close the quote, or double it where it belongs to the text."
    try:
        for row in reader:
            if row and any(cell.strip() for cell in row):
                rows.append(row)
                spans.append((before + 1, reader.line_num))  # quoted values may span lines
            before = reader.line_num
    except csv.Error as error:
        raise refuse("bad_csv", str(error), f"line {before + 1}", hint) from None
    if spans and spans[-1][0] < spans[-1][1] and "unexpected end" in _stray_quote(lines[spans[-1][0] - 1 :], delimiter):
        message = "a quote that opens in this row is never closed"
        raise refuse("open_quote", message, f"line {spans[-1][0]}", hint)
    return rows, spans


def _stray_quote(lines: Sequence[str], delimiter: str) -> str:
    """What the strict reader says against one row: the lenient one takes a stray quote for part of a value."""
    try:
        list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error as error:
        return str(error)
    return ""


def _delimiter(text: str) -> str:
    """The one of , tab ; | that gives the most fields, above one, on the first row and alike on those below it."""
    sample = text[:65536].splitlines()[:LOOKED_AT]
    best, most = ",", 1
    for candidate in DELIMITERS:
        counts = [len(row) for row in csv.reader(sample, delimiter=candidate) if row]
        common = max(set(counts), key=counts.count) if counts else 1
        # the first row must agree, or the decimal commas of a ; file would pass for delimiters
        if common > most and counts[0] == common and counts.count(common) >= 0.8 * len(counts):
            best, most = candidate, common
    return best


def _header(rows: Sequence[Sequence[str]], *, decimal_comma: bool, said: bool | None) -> tuple[list[str], int]:
    """(column names, 1 when the first row is a header).

    It is one when a column has a word above nothing but numbers; else, when no cell of it is a number.
    Raises DataError for a name that stands twice.
    """

    def is_number(cell: str) -> bool:
        return bool(NUMBER.match(cell) or (decimal_comma and COMMA_NUMBER.match(cell)))

    cells = [cell.strip() for cell in rows[0]]
    below = [row for row in rows[1:LOOKED_AT] if len(row) == len(cells)]
    if said is False or (
        said is None
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
            raise refuse("duplicate_column", f'the column "{name}" stands twice', "line 1", "Rename one of them.")
        names[name] = None
    return list(names), 1
