"""Random tables and every way to write one: what hypothesis draws for the tests of the reader."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

WORDS = (
    *("Köln", "New York", 'the "best"', "a, b", "x;y", "one|two", "p\tq", "O'Neill", "two\nlines"),
    *("None", "none", "Na", "r", "é", "-", "."),
)
TRUE_WORDS = (("true", "false"), ("True", "False"), ("TRUE", "FALSE"))
START = datetime.date(1999, 12, 25)


@dataclass(frozen=True)
class Written:
    """A table's file, and what it means."""

    data: bytes
    kind: str
    dialect: dict[str, Any]
    columns: dict[str, list[Any]]
    """float, str, bool, date, or None for a gap."""

    @property
    def target(self) -> str:
        """The last column."""
        return list(self.columns)[-1]


def numbers(draw: Callable[..., Any], rows: int) -> list[Any]:
    """Numbers with two decimals, of which one is not whole: how they are written is beyond doubt."""
    cents = draw(st.lists(st.integers(-10_000_000, 10_000_000), min_size=rows, max_size=rows))
    return [cent + 0.25 if row == 0 else cent / 100 for row, cent in enumerate(cents)]


def whole(draw: Callable[..., Any], rows: int) -> list[Any]:
    return [float(n) for n in draw(st.lists(st.integers(-999, 999), min_size=rows, max_size=rows))]


def codes(draw: Callable[..., Any], rows: int) -> list[Any]:
    some = draw(
        st.lists(st.sampled_from(["00501", "01002", "90210", "9007199254740993"]), min_size=rows, max_size=rows)
    )
    return ["00501", *some[1:]]


def categories(draw: Callable[..., Any], rows: int) -> list[Any]:
    some = draw(st.lists(st.sampled_from(WORDS), min_size=rows, max_size=rows))
    return ["word", *some[1:]]


def booleans(draw: Callable[..., Any], rows: int) -> list[Any]:
    return list(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))


def dates(draw: Callable[..., Any], rows: int) -> list[Any]:
    days = draw(st.lists(st.integers(0, 20_000), min_size=rows, max_size=rows))
    return [START + datetime.timedelta(days=0 if row == 0 else day) for row, day in enumerate(days)]


MAKERS = (numbers, whole, codes, categories, booleans, dates)


@st.composite
def written_tables(
    draw: Callable[..., Any], kinds: tuple[str, ...] = ("csv", "jsonl", "json", "parquet", "xlsx")
) -> Written:
    """A table of every type of column and a target `y`, in a random dialect."""
    rows = draw(st.integers(12, 24))
    columns: dict[str, list[Any]] = {}
    for number, maker in enumerate(draw(st.permutations(MAKERS))[: draw(st.integers(2, 6))]):
        values = maker(draw, rows)
        gaps = draw(st.booleans())
        columns[f"{maker.__name__} {number}"] = [
            None if gaps and row > 2 and row % 5 == number % 5 else value for row, value in enumerate(values)
        ]
    columns["y"] = ["yes" if row % 2 else "no" for row in range(rows)]
    kind = draw(st.sampled_from(kinds))
    if kind == "parquet":
        return Written(_parquet(columns), kind, {}, columns)
    if kind == "xlsx":
        return Written(_workbook(draw, columns), kind, {}, columns)
    if kind in ("jsonl", "json"):
        return Written(_json(draw, columns, kind), kind, {}, columns)
    return _delimited(draw, columns)


def _json(draw: Callable[..., Any], columns: dict[str, list[Any]], kind: str) -> bytes:
    leave_out = draw(st.booleans())
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    shown = [
        {name: str(value) if isinstance(value, datetime.date) else value for name, value in record.items()}
        for record in records
    ]
    if leave_out:
        shown = [{name: value for name, value in record.items() if value is not None} for record in shown]
    if kind == "json":
        return json.dumps(shown, ensure_ascii=False).encode()
    return "\n".join(json.dumps(record, ensure_ascii=False) for record in shown).encode()


def _parquet(columns: dict[str, list[Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), buffer)
    return buffer.getvalue()


def _workbook(draw: Callable[..., Any], columns: dict[str, list[Any]]) -> bytes:
    """A workbook whose table begins in any cell; a gap is an empty cell or an error."""
    book = openpyxl.Workbook()
    sheet = book.active
    top, left = draw(st.integers(0, 3)), draw(st.integers(0, 2))
    error = draw(st.sampled_from([None, "#N/A", "#DIV/0!"]))
    for place, (name, values) in enumerate(columns.items()):
        for row, value in enumerate([name, *values]):
            cell = sheet.cell(top + row + 1, left + place + 1, error if value is None else value)
            cell.data_type = "s" if isinstance(value, str) else "e" if value is None and error else cell.data_type
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def _delimited(draw: Callable[..., Any], columns: dict[str, list[Any]]) -> Written:
    dialect = {
        "delimiter": draw(st.sampled_from([",", ";", "\t", "|"])),
        "titles": draw(st.sampled_from([0, 0, 1, 3])),
        "encoding": draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"])),
        "newline": draw(st.sampled_from(["\n", "\r\n"])),
        "quoting": draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])),
        "blank": draw(st.sampled_from(["", " "])),
        "separator_line": draw(st.booleans()),
        "decimal": draw(st.sampled_from([".", ","])),
        "thousands": draw(st.sampled_from(["", "other", " ", "'"])),
        "missing": draw(st.sampled_from(["", "NA", "#N/A", "NULL"])),
        "date": draw(st.sampled_from(["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%Y-%m-%d 00:00:00"])),
        "true": draw(st.sampled_from(TRUE_WORDS)),
        "header": draw(st.sampled_from([True, True, False])),
        "gzip": draw(st.booleans()),
        "unit": draw(st.sampled_from(["{}", "{}", "${}", "{} %", "€ {}"])),
    }
    if dialect["thousands"] == "other":
        dialect["thousands"] = "," if dialect["decimal"] == "." else "."
    text = io.StringIO()
    quote = {"quoting": dialect["quoting"], "lineterminator": dialect["newline"], "delimiter": dialect["delimiter"]}
    writer = csv.writer(text, **quote)
    if any(name.startswith(("numbers", "whole")) for name in columns) and not dialect["header"]:
        columns = {f"column_{number}": cells for number, cells in enumerate(columns.values(), 1)}
    else:
        writer.writerow(list(columns))
    for row in zip(*columns.values(), strict=True):
        writer.writerow([_cell(value, dialect) for value in row])
    body = text.getvalue()
    if dialect["blank"]:
        body = _with_blanks(body, dialect)
    if dialect["separator_line"]:
        body = f"sep={dialect['delimiter']}{dialect['newline']}{body}"
    if dialect["titles"] and not dialect["separator_line"]:
        body = "".join(f"title {n}, of{dialect['newline']}" for n in range(int(dialect["titles"]))) + body
    else:
        dialect["titles"] = 0
    data = body.encode(dialect["encoding"])
    return Written(gzip.compress(data) if dialect["gzip"] else data, "csv", dialect, columns)


def _with_blanks(body: str, dialect: dict[str, Any]) -> str:
    """A blank after each delimiter that stands outside of quotes."""
    out, quoted = [], False
    for character in body:
        quoted ^= character == '"'
        out.append(character + dialect["blank"] if character == dialect["delimiter"] and not quoted else character)
    return "".join(out)


def _cell(value: Any, dialect: dict[str, Any]) -> str:
    if value is None:
        return str(dialect["missing"])
    if isinstance(value, bool):
        return str(dialect["true"][0 if value else 1])
    if isinstance(value, datetime.date):
        return value.strftime(dialect["date"])
    if isinstance(value, float):
        whole_part, _, fraction = f"{value:,.2f}".partition(".")
        shown = whole_part.replace(",", dialect["thousands"])
        shown = shown if value.is_integer() and abs(value) < 1000 else shown + dialect["decimal"] + fraction
        return str(dialect["unit"]).format(shown)
    return str(value)
