"""Titles above a table, columns aligned by blanks, and unusual delimiters: at intake, and again at predict."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest

from trainkit.data import DataError, Dataset, prepare
from trainkit.data.errors import InputError
from trainkit.data.table.request_rows import read_request
from trainkit.fit.encoding.table_encoder import TableEncoder
from trainkit.spec.read_options import ReadOptions

ROWS = [[i, round(i * 0.5 + 0.25, 2), "ab"[i % 2]] for i in range(12)]
TITLES = 'Report of "May\nall figures, in EUR\n\n'


def loaded(folder: Path, raw: bytes, **options: Any) -> tuple[Dataset, dict[str, Any], TableEncoder]:
    (folder / "t").write_bytes(raw)
    reading = ReadOptions.model_validate(options)
    facts, report = prepare(folder / "t", folder / "prepared", target="z", reading=reading)
    data = Dataset.load(folder / "prepared")
    columns = [column for column in facts.columns or () if column.name != "z"]
    fitted = TableEncoder.fit(data.inputs, columns, None, np.arange(facts.samples))
    return data, report, TableEncoder.from_state(fitted.state())


def text(delimiter: str = ",", header: bool = True) -> str:
    names = [["x", "y", "z"]] if header else []
    return "".join(delimiter.join(map(str, row)) + "\n" for row in [*names, *ROWS])


def workbook(titles: int, merged: str = "", header: bool = True) -> bytes:
    book, buffer = openpyxl.Workbook(), io.BytesIO()
    for row in range(titles):
        book.active.append([f"title {row}"])
    for row in [*([["x", "y", "z"]] if header else []), *ROWS]:
        book.active.append(row)
    if merged:
        book.active.merge_cells(merged)
    book.save(buffer)
    return buffer.getvalue()


def encodes(encoder: TableEncoder, body: bytes) -> list[list[float]]:
    rows = read_request(encoder.format, body, "application/octet-stream", encoder.names)
    encoded: list[list[float]] = encoder.parse(rows)[0].tolist()
    return encoded


EXPECTED = [[float(row[0]), row[1]] for row in ROWS]


def test_titles_above_a_text(tmp_path: Path) -> None:
    data, _, encoder = loaded(tmp_path, (TITLES + text()).encode(), skip_rows=3)
    assert data.facts.samples == 12
    assert encodes(encoder, (TITLES + text()).encode()) == EXPECTED
    assert encodes(encoder, text().encode()) == EXPECTED, "a request without the titles loses no row"
    assert encodes(encoder, b"x,y\n0,0.25\n") == EXPECTED[:1]
    with pytest.raises(InputError, match=r"line 7"):
        encodes(encoder, (TITLES + text()).replace("2,1.25", "2,word").encode())


def test_titles_above_a_text_without_names(tmp_path: Path) -> None:
    named = "a report\nof two lines\n"
    (tmp_path / "t").write_text(named + text(header=False))
    reading = ReadOptions(skip_rows=2, header=False)
    facts, _ = prepare(tmp_path / "t", tmp_path / "prepared", target="column_3", reading=reading)
    data = Dataset.load(tmp_path / "prepared")
    columns = [column for column in facts.columns or () if column.name != "column_3"]
    encoder = TableEncoder.fit(data.inputs, columns, None, np.arange(facts.samples))
    for body in (
        named + text(header=False),
        text(header=False),
        text(header=False).replace(",a", "").replace(",b", ""),
    ):
        assert encodes(encoder, body.encode()) == EXPECTED


@pytest.mark.parametrize("merged", ["", "A1:C1", "A1:C2"])
def test_titles_above_a_sheet(merged: str, tmp_path: Path) -> None:
    raw = workbook(2, merged)
    with pytest.raises(DataError, match=r"skip_rows|merged|no row of names") as refused:
        loaded(tmp_path, raw)
    assert "skip_rows" in refused.value.problems[0].hint
    data, _, encoder = loaded(tmp_path, raw, skip_rows=2)
    assert data.facts.samples == 12
    assert encodes(encoder, raw) == encodes(encoder, workbook(0)) == encodes(encoder, text().encode()) == EXPECTED
    with pytest.raises(DataError, match="merged"):
        loaded(tmp_path, workbook(2, "A5:B5"), skip_rows=2)


def test_skip_rows_is_for_lines(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="delimited text and Excel"):
        loaded(tmp_path, b'{"x": 1, "z": "a"}\n{"x": 2, "z": "b"}\n', skip_rows=1)
    with pytest.raises(ValueError, match="integer"):
        ReadOptions.model_validate({"skip_rows": True})
    assert ReadOptions.model_validate({"skip_rows": 3.0}).skip_rows == 3


ALIGNED = """  x     y  z
  0  0.25  a
  1  0.75  "a b"
 10  1.25	a
"""


def test_aligned_columns_are_detected(tmp_path: Path) -> None:
    data, report, encoder = loaded(tmp_path, ALIGNED.encode())
    assert report["delimiter"] == "blanks"
    assert [found["code"] for found in report["findings"] if found["code"] == "aligned_columns"]
    assert data.inputs.columns["z"].categories == ("a", "a b")
    assert encodes(encoder, ALIGNED.encode()) == [[0, 0.25], [1, 0.75], [10, 1.25]]
    assert encodes(encoder, b"x,y\n5,6\n") == [[5, 6]]


@pytest.mark.parametrize(
    "lines",
    [
        ["1 234", "5 678", "9 012", "3 456"],
        ["1 234 567", "5 678 901", "9 012 345", "3 456 000"],
        ["the red fox", "the old dog", "one big cat", "two hot pies"],
        ["2024-01-31 12:30:00 UTC", "2024-01-30 12:30:00 UTC", "2024-01-29 12:30:00 UTC"],
        ["New York 1", "Los Angeles 2", "San Jose 3"],
        ["12 kg", "13 kg", "14 kg"],
    ],
)
def test_blanks_in_values_are_no_delimiter(lines: list[str], tmp_path: Path) -> None:
    (tmp_path / "t").write_text("\n".join(["z", *lines]) + "\n")
    facts, report = prepare(tmp_path / "t", tmp_path / "prepared")
    assert ([column.name for column in facts.columns or ()], report["delimiter"]) == (["z"], ",")


@pytest.mark.parametrize("delimiter", [":", "~", "^", "/", "blanks"])
def test_delimiters_that_are_asked_for(delimiter: str, tmp_path: Path) -> None:
    raw = text("   " if delimiter == "blanks" else delimiter).encode()
    _, report, encoder = loaded(tmp_path, raw, delimiter=delimiter)
    assert report["delimiter"] == delimiter
    assert encodes(encoder, raw) == EXPECTED
