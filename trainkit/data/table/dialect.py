"""`Dialect`: the encoding of a text file, its delimiter and quote, and whether its first row names the columns."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from trainkit.data.errors import data_error
from trainkit.spec.read_options import ReadOptions, text_encoding

DELIMITERS = (",", "\t", ";", "|")
SNIFFED_ROWS = 50
SNIFFED_CHARACTERS = 65536
SEPARATOR_LINE = re.compile(r'\s*"?sep=(?P<delimiter>[^\r\n"])"?\s*\r?\n?', re.IGNORECASE)
"""Excel's first line that names the delimiter; it is no row."""
BLANKS = "blanks"
"""The delimiter of columns that any number of blanks and tabs keep apart."""
MIN_ALIGNED_COLUMNS = 3
BLANKS_OR_QUOTED = re.compile(r'((?<!")"(?:[^"]|"")*+"(?=[ \t]|$))|[ \t]+')
"""One pass over a line of any number of quotes: none inside a run of them begins a cell, and nothing is read twice."""
SURROGATE = re.compile("[\ud800-\udfff]")
BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


class Dialect(BaseModel):
    """What is known of the form of a table's file; delimiter and quote are of delimited text alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    file: Literal["delimited", "json_lines", "json", "parquet", "excel"] = "delimited"
    encoding: str = "utf-8"
    delimiter: str = ","
    quote: str = '"'
    header: bool = True
    sheet: str | None = None
    """The sheet of an Excel workbook."""
    skip_rows: int = 0
    """Lines, or rows of a sheet, above the table."""


def detect_dialect(
    text: str, encoding: str, options: ReadOptions, is_number: Callable[[str], bool]
) -> tuple[Dialect, bool]:
    """Return (the dialect of delimited text, whether its first line is Excel's `sep=;`).

    `header` is decided later, from the rows: it is what `options` say, else True.
    """
    line = SEPARATOR_LINE.match(text)
    separator = options.separator or (line["delimiter"] if line else None)
    body = text[line.end() :] if line else text
    skip_rows = options.skip_rows or 0
    if skip_rows:
        body = "".join(io.StringIO(body, newline="").readlines()[skip_rows:])
    sample = body[:SNIFFED_CHARACTERS].splitlines()[:SNIFFED_ROWS]
    quote = options.quote or _quote(sample, separator)
    delimiter = separator or _delimiter(sample, quote) or (BLANKS if is_aligned(sample, is_number) else ",")
    header = True if options.header is None else options.header
    dialect = Dialect(encoding=encoding, delimiter=delimiter, quote=quote, header=header, skip_rows=skip_rows)
    return dialect, line is not None


def aligned_cells(line: str) -> str:
    """Return a line whose columns blanks keep apart, outside of quotes, with a tab in place of each run of blanks."""
    body = line.rstrip("\r\n")
    return BLANKS_OR_QUOTED.sub(lambda found: found[1] or "\t", body.strip(" \t")) + line[len(body) :]


def is_aligned(sample: Sequence[str], is_number: Callable[[str], bool]) -> bool:
    """Return whether blanks keep columns apart, beyond doubt: no other reading gives these lines columns of numbers.

    All lines have the same number of cells, at least three, of which two or more are numbers in each line but the
    first; and no line is a single number with blanks between its thousands, nor a sentence.
    """
    rows = [aligned_cells(line).split("\t") for line in sample if line.strip()]
    if len(rows) < 3 or len(rows[0]) < MIN_ALIGNED_COLUMNS or any(len(row) != len(rows[0]) for row in rows):
        return False
    if any(is_number(line.strip()) for line in sample if line.strip()):
        return False
    numeric = [place for place in range(len(rows[0])) if all(is_number(row[place]) for row in rows[1:])]
    return len(numeric) >= 2 and 2 * len(numeric) >= len(rows[0])


def decode_text(raw: bytes, where: str, declared: str | None = None) -> tuple[str, str]:
    """(text, encoding): the declared one, else a byte-order mark, else UTF-8, else Windows-1252.

    Raises DataError for binary data, and for bytes that are not of the declared encoding.
    """
    if declared is not None:
        try:
            return _decoded(raw, declared), declared
        except UnicodeError as error:
            line = raw[: getattr(error, "start", 0)].count(b"\n") + 1
            hint = "Leave out `encoding`: it is detected."
            raise data_error(
                "bad_encoding", f"not {declared}: {getattr(error, 'reason', error)}", f"line {line}", hint
            ) from None
    for mark, encoding in BYTE_ORDER_MARKS:
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


def decode_request(raw: bytes, stored: str, charset: str | None) -> str:
    """Return the text of a request: by its charset, its byte-order mark, as UTF-8, or in the encoding of the file.

    An encoding that writes ASCII in another way (utf-16, utf-7) comes before UTF-8. Raises DataError.
    """
    if charset is not None:
        try:
            text_encoding(charset)
        except ValueError:
            hint = "Usual ones are utf-8 and cp1252; left out, it is detected."
            raise data_error("bad_encoding", f"the charset {charset!r} is unknown", "Content-Type", hint) from None
        return decode_text(raw, "the body", charset)[0]
    if any(raw.startswith(mark) for mark, _ in BYTE_ORDER_MARKS) or (_writes_ascii(stored) and _is_utf8(raw)):
        return decode_text(raw, "the body")[0]
    try:
        return _decoded(raw, stored)
    except UnicodeError:
        return decode_text(raw, "the body")[0]


def _decoded(raw: bytes, encoding: str) -> str:
    """Return the text. Raises UnicodeError, also for half of a surrogate pair, which UTF-7 would pass on."""
    text = raw.decode(encoding)
    if not text.isascii() and (half := SURROGATE.search(text)):
        start = len(text[: half.start()].encode(encoding))
        raise UnicodeDecodeError(encoding, raw, min(start, len(raw) - 1), len(raw), "half of a surrogate pair")
    return text


def _writes_ascii(encoding: str) -> bool:
    ascii_bytes = bytes(range(1, 128))
    try:
        return ascii_bytes.decode(encoding) == ascii_bytes.decode("ascii")
    except (LookupError, UnicodeError):
        return False


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\x00" not in raw


def _rows(sample: Sequence[str], delimiter: str, quote: str) -> list[list[str]]:
    rows = csv.reader(sample, delimiter=delimiter, quotechar=quote, skipinitialspace=delimiter != " ")
    return [row for row in rows if row]


def _delimiter(sample: Sequence[str], quote: str) -> str:
    """Return the delimiter (, tab ; |) with the most fields, where the first row and most others have the same number.

    "" where none gives two fields.
    """
    best, most = "", 1
    for candidate in DELIMITERS:
        counts = [len(row) for row in _rows(sample, candidate, quote)]
        common = max(set(counts), key=counts.count) if counts else 1
        # the first row must agree, else the decimal commas of a ; file count as delimiters
        if common > most and counts[0] == common and counts.count(common) >= 0.8 * len(counts):
            best, most = candidate, common
    return best


def _quote(sample: Sequence[str], delimiter: str | None) -> Literal['"', "'"]:
    """Return the apostrophe where it, and no quotation mark, stands around values, else the quotation mark."""
    if any('"' in line for line in sample) or not any("'" in line for line in sample):
        return '"'
    delimiter = delimiter or _delimiter(sample, "'") or ","
    fields = [field.strip() for line in sample for field in line.split(delimiter)]
    opened = sum(field.startswith("'") for field in fields)
    closed = sum(field.endswith("'") for field in fields)
    around = sum(len(field) > 1 and field[0] == field[-1] == "'" for field in fields)
    return "'" if around and around >= len(sample) / 2 and opened == closed else '"'
