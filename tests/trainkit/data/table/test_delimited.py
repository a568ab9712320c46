"""Delimited text: detection of the dialect, and stray quotes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainkit.data import DataError
from trainkit.data.table.reader import read_columns


def table(tmp_path: Path, text: str) -> tuple[dict[str, list[Any]], list[dict[str, str]], dict[str, Any]]:
    path = tmp_path / "t.csv"
    path.write_text(text)
    read = read_columns(path, None)
    columns, details = read.columns, read.details
    shown = {
        name: column.values.tolist()
        if column.categories is None
        else [column.categories[code] for code in column.values.tolist()]
        for name, column in columns.items()
    }
    return shown, details["unreadable"], details


def test_decimal_commas_of_a_semicolon_file(tmp_path: Path) -> None:
    columns, _, details = table(tmp_path, "a;b;c\n1,5;2,5;x\n-1;2,25;y\n3e2;0;1,5\n")
    assert columns == {"a": [1.5, -1.0, 300.0], "b": [2.5, 2.25, 0.0], "c": ["x", "y", "1,5"]}
    assert details["delimiter"] == ";"


def test_decimal_commas_between_quotes(tmp_path: Path) -> None:
    assert table(tmp_path, 'a,b\n"1,5",2\n"2,25",3\n')[0] == {"a": [1.5, 2.25], "b": [2.0, 3.0]}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("id,1990,1991\n1,2,3\n4,5,6\n", ["id", "1990", "1991"]),
        ("place,1990\nUlm,2\nBonn,3\n", ["column_1", "column_2"]),
        ("?,2\n3,4\n", ["column_1", "column_2"]),
        ("1,5;2;x\n1,5;2;y\n", ["column_1", "column_2", "column_3"]),
        (",x,y\n0,1,2\n1,3,4\n", ["column_1", "x", "y"]),
        ("a,b\nc,d\n", ["a", "b"]),
    ],
)
def test_what_is_a_header(text: str, names: list[str], tmp_path: Path) -> None:
    assert list(table(tmp_path, text)[0]) == names


def test_a_quote_that_is_never_closed_names_the_row_where_it_opens(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        table(tmp_path, 'a,b\n1,x\n2,"y\n' + "3,z\n" * 100)
    assert (caught.value.problems[0].code, caught.value.problems[0].where) == ("open_quote", "line 3")


def test_rows_swallowed_by_a_quote_count_by_their_lines(tmp_path: Path) -> None:
    swallowed = 'a,b\n1,x\n2,"y,k\n' + "3,z\n" * 50 + '4,"k"\n' + "1,x\n" * 100
    with pytest.raises(
        DataError, match=r"line 3: a quote opens on this line and is closed in the wrong place, on line 54"
    ):
        table(tmp_path, swallowed)
    columns, bad, _ = table(tmp_path, 'a,b\n1,x\n2,"y,k\n4,"k"\n' + "1,x\n" * 100)
    assert len(columns["a"]) == 101
    assert [item["where"] for item in bad] == ["line 3"]


def test_a_value_may_span_lines(tmp_path: Path) -> None:
    columns, bad, _ = table(tmp_path, 'a,b\n1,"x ""y""\nz"\n2,"last\nline"\n')
    assert (columns["b"], bad) == (['x "y"\nz', "last\nline"], [])


def test_a_file_of_delimiters_alone_is_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no values"):
        table(tmp_path, ",,\n\n,,\n")
