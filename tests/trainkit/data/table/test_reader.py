"""Tables: dialects, encodings, gaps, types, and bad rows by line."""

from __future__ import annotations

import datetime
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainkit.data import DataError, Dataset, TableInputs
from trainkit.data.load import detect_kind
from trainkit.data.table.reader import read_table


def table(tmp_path: Path, content: str | bytes, **options: Any) -> tuple[Dataset, dict[str, Any]]:
    path = tmp_path / "t"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path, **options)


def values(dataset: Dataset, name: str) -> list[Any]:
    assert isinstance(dataset.inputs, TableInputs)
    column = dataset.inputs.columns[name]
    if column.categories is None:
        return [None if np.isnan(value) else value for value in column.values.tolist()]
    return [None if code < 0 else column.categories[code] for code in column.values.tolist()]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_dialects_and_encodings(delimiter: str, newline: str, encoding: str, tmp_path: Path) -> None:
    rows = [["größe", "Ort"], ["1.5", '"Köln, am Rhein; Dom"'], ["-2e3", "Ulm"], ["", "Ulm"]]
    dataset, details = table(tmp_path, newline.join(delimiter.join(row) for row in rows).encode(encoding))
    assert values(dataset, "größe") == [1.5, -2000.0, None]
    assert values(dataset, "Ort") == ["Köln, am Rhein; Dom", "Ulm", "Ulm"]
    assert details["delimiter"] == delimiter


def test_a_first_row_with_a_number_is_no_header(tmp_path: Path) -> None:
    dataset, details = table(tmp_path, "1,a\n2,b\n")
    assert details["header"] is False
    assert values(dataset, "column_1") == [1.0, 2.0]


def test_a_table_of_one_column(tmp_path: Path) -> None:
    assert values(table(tmp_path, "x\n1\n2\n")[0], "x") == [1.0, 2.0]


@pytest.mark.parametrize("gap", ["", "NA", "n/a", "NaN", "null", "?", " "])
def test_what_counts_as_missing(gap: str, tmp_path: Path) -> None:
    dataset, _ = table(tmp_path, f"n,c\n1,x\n{gap},{gap}\n2,y\n" if gap.strip() else f"n,c\n1,x\n{gap},z\n2,y\n")
    assert values(dataset, "n") == [1.0, None, 2.0]


def test_one_word_makes_a_column_categorical(tmp_path: Path) -> None:
    assert values(table(tmp_path, "a,b\n1,x\n2,y\nthree,z\n")[0], "a") == ["1", "2", "three"]


def test_a_few_bad_rows_are_left_out_and_named_by_their_first_line(tmp_path: Path) -> None:
    text = 'a,b\n"two\nlines",1\n' + "x,2\n" * 40 + '"again\ntwo",3,4\n' + "y,5\n"
    dataset, details = table(tmp_path, text)
    assert dataset.facts.samples == 42
    assert details["unreadable"] == [{"where": "line 44", "reason": "3 values for 2 columns"}]


def test_many_bad_rows_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        table(tmp_path, "a,b\n1,2\n3\n4,5,6\n")
    assert [problem.where for problem in caught.value.problems] == ["line 3", "line 4"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty"),
        (b"a,b\n", "no_rows"),
        (b"a,a\n1,2\n", "duplicate_column"),
        (b"a,b\n1,\x00\n", "binary"),
        (b"\xff\xfea", "bad_encoding"),
        (b"PAR1 but not really", "damaged_parquet"),
        (b'{"a": [1, 2]}\n', "nested_value"),
        (b'{"a": 1}\n{"a": \n', "bad_row"),
        (b"a,b\n1,2\n", "missing_column"),
    ],
)
def test_refusals(content: bytes, code: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        table(tmp_path, content, target="income" if code == "missing_column" else None)
    assert caught.value.problems[0].code == code


def test_a_misspelt_target_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        table(tmp_path, "age,income\n1,2\n", target="incme")
    assert 'Did you mean "income"?' in caught.value.problems[0].hint


def test_a_split_column_becomes_the_predefined_split(tmp_path: Path) -> None:
    dataset, details = table(tmp_path, "x,Split,y\n1,train,a\n2,val,b\n3,Test,a\n", target="y")
    assert dataset.split is not None
    assert dataset.split.tolist() == [0, 1, 2]
    assert [column.name for column in dataset.facts.columns or ()] == ["x", "y"]
    assert details["split_column"] == "Split"


@pytest.mark.parametrize("text", ["x,split\n1,left\n2,right\n", "x,split\n1,train\n2,\n", "split\ntrain\ntest\n"])
def test_other_columns_called_split_stay_columns(text: str, tmp_path: Path) -> None:
    dataset, _ = table(tmp_path, text)
    assert dataset.split is None
    assert dataset.facts.column("split") is not None


def test_json_lines(tmp_path: Path) -> None:
    rows = [{"a": 1.5, "b": "x", "c": True}, {"a": None, "c": False, "d": 2.5}, {"a": 10**400, "b": "y"}]
    dataset, _ = table(tmp_path, "\n".join(map(json.dumps, rows)))
    assert values(dataset, "a") == [1.5, None, np.inf]
    assert values(dataset, "b") == ["x", None, "y"]
    assert values(dataset, "c") == ["true", "false", None]
    assert values(dataset, "d") == [None, 2.5, None]


def test_parquet(tmp_path: Path) -> None:
    day = datetime.date(1970, 1, 2)
    pq.write_table(
        pa.table(
            {
                "whole": pa.array([1, None, 2**62]),
                "text": pa.array(["x", None, "y"]),
                "coded": pa.array(["u", "v", "u"]).dictionary_encode(),
                "flag": pa.array([True, False, None]),
                "day": pa.array([day, None, day]),
                "nothing": pa.nulls(3),
            }
        ),
        tmp_path / "t",
    )
    dataset, _ = read_table(tmp_path / "t")
    assert values(dataset, "whole") == [1.0, None, float(2**62)]
    assert values(dataset, "text") == ["x", None, "y"]
    assert values(dataset, "coded") == ["u", "v", "u"]
    assert values(dataset, "flag") == ["true", "false", None]
    assert values(dataset, "day") == [86400.0, None, 86400.0]
    assert values(dataset, "nothing") == [None, None, None]


def test_a_parquet_column_of_lists_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"ok": [1], "nested": [[1, 2]]}), tmp_path / "t")
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "t")
    assert caught.value.problems[0].where == "nested"


def test_parquet_and_csv_of_the_same_table_agree(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    columns = {"x": random.normal(size=50).tolist(), "y": random.choice(["a", "b"], 50).tolist()}
    pq.write_table(pa.table(columns), tmp_path / "p")
    lines = ["x,y", *(f"{x!r},{y}" for x, y in zip(columns["x"], columns["y"], strict=True))]
    assert read_table(tmp_path / "p")[0].facts == table(tmp_path, "\n".join(lines))[0].facts


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_damaged_tables_raise_nothing_but_data_errors(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    if kind == "parquet":
        pq.write_table(pa.table({"a": [1, 2, None] * 9, "b": ["x", "y", None] * 9}), tmp_path / "p")
        raw = (tmp_path / "p").read_bytes()
    else:
        line = b'1,"x y",3.5\n2,z,\n' if kind == "csv" else b'{"a":1,"b":"x"}\n{"a":null,"b":"y"}\n'
        raw = b"a,b,c\n" + line * 5 if kind == "csv" else line * 5
    for trial in range(200):
        broken = bytearray(raw)
        for place in random.integers(0, len(raw), 1 + trial % 6):
            broken[place] = random.integers(256)
        with suppress(DataError):
            table(tmp_path, bytes(broken))


def test_a_list_of_objects(tmp_path: Path) -> None:
    dataset, _ = table(tmp_path, json.dumps([{"n": 1, "c": "x"}, {"n": None, "c": "y"}], indent=1))
    assert (values(dataset, "n"), values(dataset, "c")) == ([1.0, None], ["x", "y"])
    with pytest.raises(DataError, match="row 2: not a JSON object"):
        table(tmp_path, '[{"n": 1}, 2]')
    with pytest.raises(DataError, match="not JSON"):
        table(tmp_path, '[{"n": 1}')


def test_only_line_feeds_end_a_json_line(tmp_path: Path) -> None:
    dataset, _ = table(tmp_path, json.dumps({"c": "one\u2028two"}, ensure_ascii=False) + "\n")
    assert values(dataset, "c") == ["one\u2028two"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("form", ["list", "lines"])
def test_json_is_found_behind_a_byte_order_mark(encoding: str, form: str, tmp_path: Path) -> None:
    records = [{"f": 0.5, "flag": True}, {"f": 1.5, "flag": False}]
    text = json.dumps(records) if form == "list" else "\n".join(map(json.dumps, records))
    dataset, _ = table(tmp_path, text.encode(encoding))
    assert values(dataset, "f") == [0.5, 1.5]
    assert values(dataset, "flag") == ["true", "false"]
    assert detect_kind(tmp_path / "t")[0] == "table"
