"""Delimited text as codes: what a line costs in memory, and what is refused before there is too little of it."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainkit.data.errors import DataError
from trainkit.data.limits import ReadLimits, limited
from trainkit.data.table import delimited, text_columns
from trainkit.data.table.dialect import Dialect
from trainkit.data.table.text_columns import TextColumn, read_text_columns

COMMA = Dialect(file="delimited")
CELLS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["1", "2,5", 'x"y', "two\nlines", "z"])), min_size=1)


def read(text: str, header: bool | None = True, bad: list[dict[str, str]] | None = None) -> list[TextColumn]:
    return read_text_columns(text, COMMA, header, "t.csv", [] if bad is None else bad)[1]


def cells_of(column: TextColumn) -> list[str]:
    return [list(column.counts)[code] for code in column.codes]


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


@given(rows=CELLS, end=st.sampled_from(["\n", "\r\n", "\r"]), block=st.integers(1, 60), at_once=st.integers(1, 5))
def test_wherever_it_is_cut_the_cells_are_those_of_the_file(
    rows: list[tuple[str, str]], end: str, block: int, at_once: int
) -> None:
    text = end.join(["a,b", *(",".join(map(quoted, row)) for row in rows)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "BLOCK_CHARACTERS", block)
        patch.setattr(text_columns, "ROWS_AT_ONCE", at_once)
        columns = read(text)
    assert [column.name for column in columns] == ["a", "b"]
    for column, expected in zip(columns, zip(*rows, strict=True), strict=True):
        assert cells_of(column) == list(expected)
        assert dict(column.counts) == dict(Counter(expected))


def peak_of(lines: int) -> int:
    text = "a,b\n" + "1,2\n3,4\n" * (lines // 2)
    tracemalloc.start()
    try:
        columns = read(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [len(column.codes) for column in columns] == [lines, lines]
    return peak


def test_a_short_line_costs_less_than_thirty_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cells of two bytes, beside the text: 400 bytes before."""
    monkeypatch.setattr(text_columns, "ROWS_AT_ONCE", 1000)
    monkeypatch.setattr(delimited, "BLOCK_CHARACTERS", 10_000)
    few, many = 10_000, 30_000
    assert (peak_of(many) - peak_of(few)) / (many - few) < 30


def test_more_lines_than_memory_holds_are_refused_before_they_are_split() -> None:
    text = "a\n" + "1\n" * 100_000
    with limited(ReadLimits(memory_bytes=2**20)), pytest.raises(DataError, match="100,001 lines"):
        read(text)


def test_more_different_values_than_memory_holds_are_refused_with_their_column() -> None:
    text = "kind,id\n" + "".join(f"{number % 3},{number}\n" for number in range(60_000))
    with limited(ReadLimits(memory_bytes=12 * 2**20)), pytest.raises(DataError) as refused:
        read(text)
    (problem,) = refused.value.problems
    assert problem.code == "too_large"
    assert 'most of them in column "id"' in problem.message
    assert "TRAINKIT_READER_MEMORY_BYTES" in problem.hint
    with limited(ReadLimits(memory_bytes=40 * 2**20)):
        assert len(read(text)[1].counts) == 60_000


def test_reading_ends_when_too_many_rows_are_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_columns, "ROWS_AT_ONCE", 100)
    bad: list[dict[str, str]] = []
    with pytest.raises(DataError) as refused:
        read("a,b\n" + "1,2,3\n" * 10_000 + "1,2\n" * 10_000, bad=bad)
    assert len(refused.value.problems) == 100
    assert len(bad) < 1200, "what is certain after 5 % of the lines is not looked for in the others"


def test_a_few_bad_rows_are_told_with_all_lines_that_they_take() -> None:
    bad: list[dict[str, str]] = []
    rows = ["1,2"] * 200
    rows[100:102], rows[150] = ['1,"x', '2,y"z'], "1,2,3"
    columns = read("a,b\n" + "\n".join(rows) + "\n", bad=bad)
    assert [item["where"] for item in bad] == ["line 102", "line 152"]
    assert [len(column.codes) for column in columns] == [197, 197]
