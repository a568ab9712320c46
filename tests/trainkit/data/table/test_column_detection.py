"""What a column is: separators, missing words, codes, dates, and what the report says where nothing decides."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainkit.data import DataError, Dataset, TableInputs, prepare
from trainkit.data.errors import InputError
from trainkit.data.table.column_format import NUMBER_MISSING, TEXT_MISSING
from trainkit.data.table.reader import read_table
from trainkit.data.table.request_rows import read_request
from trainkit.fit.encoding.table_encoder import TableEncoder
from trainkit.spec.preprocess import Impute
from trainkit.spec.read_options import ReadOptions


class Read:
    """A table that was read and stored, and its report."""

    def __init__(self, folder: Path, content: str | bytes, target: str | None = None, **options: Any) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "t").write_bytes(content.encode() if isinstance(content, str) else content)
        reading = ReadOptions.model_validate(options)
        self.facts, self.report = prepare(folder / "t", folder / "prepared", target=target, reading=reading)
        self.dataset = Dataset.load(folder / "prepared")

    def values(self, name: str) -> list[Any]:
        assert isinstance(self.dataset.inputs, TableInputs)
        column = self.dataset.inputs.columns[name]
        if column.categories is None:
            return [None if np.isnan(value) else value for value in column.values.tolist()]
        return [None if code < 0 else column.categories[code] for code in column.values.tolist()]

    def column(self, name: str) -> dict[str, Any]:
        return next(column for column in self.report["columns"] if column["name"] == name)

    def findings(self, code: str) -> list[str]:
        return [found["message"] for found in self.report["findings"] if found["code"] == code]

    def encoder(self) -> TableEncoder:
        assert isinstance(self.dataset.inputs, TableInputs)
        columns = [column for column in self.facts.columns or () if column.name != self.facts.target]
        return TableEncoder.fit(self.dataset.inputs, columns, None, np.arange(self.facts.samples))


def lines(name: str, cells: list[str], delimiter: str = ";") -> str:
    return "\n".join([f"{name}{delimiter}z", *(f"{cell}{delimiter}w" for cell in cells)]) + "\n"


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1.234,5", "0,25", "12"], [1234.5, 0.25, 12.0]),
        (["1,234.5", "0.25", "12"], [1234.5, 0.25, 12.0]),
        (["1.234.567", "12"], [1234567.0, 12.0]),
        (["1,234,567", "12"], [1234567.0, 12.0]),
        (["1 234,5", "12"], [1234.5, 12.0]),
        (["1\u00a0234", "12", "1\u202f234\u202f567"], [1234.0, 12.0, 1234567.0]),
        (["1'234.5", "12"], [1234.5, 12.0]),
        (["1\u2019234", "12"], [1234.0, 12.0]),
        (["-1.234,5", "+2,5e3"], [-1234.5, 2500.0]),
        (["900", "1,011", "1,048"], [900.0, 1011.0, 1048.0]),
        (["1,5", "2,25"], [1.5, 2.25]),
        (["0,143", "1,000"], [0.143, 1.0]),
        (["1e3", ".5", "5."], [1000.0, 0.5, 5.0]),
        (["\u22125", "\u22121.234,5"], [-5.0, -1234.5]),
    ],
)
def test_separators(cells: list[str], expected: list[float], tmp_path: Path) -> None:
    assert Read(tmp_path, lines("x", cells)).values("x") == expected


@pytest.mark.parametrize(
    "cells", [["1,23,456", "7"], ["1.2.3", "1.2.4"], ["1_000", "2_000"], ["0x1F", "0x2F"], ["٣", "٤"]]
)
def test_what_is_no_number(cells: list[str], tmp_path: Path) -> None:
    assert Read(tmp_path, lines("x", cells)).values("x") == cells


def test_what_is_ambiguous_is_said_and_can_be_set(tmp_path: Path) -> None:
    text = lines("x", ["1,234", "5,678"])
    read = Read(tmp_path / "1", text)
    assert read.values("x") == [1.234, 5.678]
    assert "1,234 is 1234 with thousands" in read.findings("ambiguous_separator")[0]
    assert Read(tmp_path / "2", text, thousands=",").values("x") == [1234.0, 5678.0]
    chosen = Read(tmp_path / "3", text, columns={"x": {"decimal": ".", "thousands": ","}})
    assert (chosen.values("x"), chosen.column("x")["thousands"]) == ([1234.0, 5678.0], ",")
    dots = lines("x", ["1.234", "5.678"], ",")
    assert Read(tmp_path / "4", dots).findings("ambiguous_separator") == []
    assert Read(tmp_path / "5", dots, decimal=",").values("x") == [1234.0, 5678.0]


def test_a_column_of_whole_numbers_takes_the_writing_of_the_others(tmp_path: Path) -> None:
    read = Read(tmp_path, "n;x;y\n1;0,5;a\n2;1.234,5;b\n3;2,5;a\n", "y")
    encoder = read.encoder()
    rows = read_request(encoder.format, b"n;x\n1,5;2,5\n1.000;1\n", "text/csv", encoder.names)
    assert encoder.parse(rows)[0].tolist() == [[1.5, 2.5], [1000.0, 1.0]]


def test_what_did_not_fit_is_listed(tmp_path: Path) -> None:
    cells = [str(i) for i in range(47)] + ["abc", "abc", "xyz"]
    read = Read(tmp_path / "1", lines("x", cells))
    assert read.column("x")["did_not_fit"] == {
        "type": "number",
        "count": 3,
        "share": 0.06,
        "examples": {"abc": 2, "xyz": 1},
    }
    (message,) = read.findings("mostly_numbers")
    assert message.startswith("all but 3 of 50 values are numbers: abc (2 times), xyz (once)")
    chosen = Read(tmp_path / "2", lines("x", cells), columns={"x": {"type": "number", "missing": ["abc", "xyz"]}})
    assert chosen.values("x")[46:] == [46.0, None, None, None]
    assert chosen.column("x")["summary"] == "47 numbers; 2 times `abc`; once `xyz`"
    with pytest.raises(DataError, match=r'column "x": 1 of 50 values are no numbers: "xyz" \(once\)') as refused:
        Read(tmp_path / "3", lines("x", cells), columns={"x": {"type": "number", "missing": ["abc"]}})
    assert '["xyz"]' in refused.value.problems[0].hint


def test_words_that_are_missing_can_be_said_for_all_columns(tmp_path: Path) -> None:
    read = Read(tmp_path, "a,b,c\n1,x,u\n-9,gone,NA\n,,u\n", missing=["-9", "gone"])
    assert (read.values("a"), read.values("b"), read.values("c")) == (
        [1.0, None, None],
        ["x", None, None],
        ["u", "NA", "u"],
    )


@pytest.mark.parametrize("word", ["None", "none", "Na", "na", "nil", "missing", "-", ".", "--"])
def test_words_of_text_are_values(word: str, tmp_path: Path) -> None:
    assert Read(tmp_path, lines("x", ["a", word, "b"])).values("x") == ["a", word, "b"]


@pytest.mark.parametrize("word", ["", "NA", "N/A", "NaN", "null", "NULL", "#N/A", "?"])
def test_words_of_text_that_are_missing_are_listed(word: str, tmp_path: Path) -> None:
    read = Read(tmp_path, lines("x", ["a", word, "b"]))
    assert (read.values("x"), read.column("x")["missing_words"]) == (["a", None, "b"], {word: 1})
    assert len(read.findings("missing_words")) == bool(word)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_strings_of_typed_files_are_never_missing(kind: str, tmp_path: Path) -> None:
    words = ["NA", "null", "", "?", " a ", "None"]
    if kind == "parquet":
        pq.write_table(
            pa.table({"x": [*words, None], "n": [1.0, None, float("nan"), 4.0, 5.0, 6.0, 7.0]}), tmp_path / "p"
        )
        read = Read(tmp_path / "1", (tmp_path / "p").read_bytes())
    else:
        read = Read(tmp_path / "1", "\n".join(json.dumps({"x": word, "n": 1}) for word in [*words, None]))
    assert read.values("x") == [*words, None]
    chosen = Read(tmp_path / "2", (tmp_path / "1" / "t").read_bytes(), columns={"x": {"missing": ["NA", ""]}})
    assert chosen.values("x") == [None, "null", None, "?", " a ", "None", None]


def test_typed_columns_of_several_types(tmp_path: Path) -> None:
    rows = [{"a": True, "b": 1, "c": 1}, {"a": 1, "b": 2.5, "c": "1"}, {"a": "x", "b": None, "c": "NA"}]
    read = Read(tmp_path, "\n".join(map(json.dumps, rows)))
    assert (read.values("a"), read.values("b"), read.values("c")) == (
        ["true", "1", "x"],
        [1, 2.5, None],
        ["1", "1", "NA"],
    )
    assert Read(tmp_path / "texts", '{"a": "1"}\n{"a": "2.5"}\n').findings("numbers_as_text")
    text = json.dumps({"a": 1}) + "\n" + '{"a": 2, "a": 3}\n' + (json.dumps({"a": 1}) + "\n") * 40
    assert Read(tmp_path / "twice", text).report["unreadable"] == [
        {"where": "line 2", "reason": 'the field "a" is there twice'}
    ]


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["00501", "90210"], ["00501", "90210"]),
        (["9007199254740992", "9007199254740993"], ["9007199254740992", "9007199254740993"]),
        (["1.0", "2.0"], ["1.0", "2.0"]),
        (["+1", "-1"], ["-1", "+1"]),
        (["1,000", "2"], ["2", "1,000"]),
        (["2", "10"], ["2", "10"]),
        (["2024-01-02", "2024-01-01"], ["2024-01-01", "2024-01-02"]),
        (["TRUE", "FALSE"], ["FALSE", "TRUE"]),
    ],
)
def test_labels_keep_the_files_text(cells: list[str], labels: list[str], tmp_path: Path) -> None:
    read = Read(tmp_path, "x\ty\n" + "".join(f"{i}\t{cells[i % 2]}\n" for i in range(8)), "y", decimal=".")
    named = read.dataset.with_target("y")
    assert list(named.facts.classes or ()) == labels
    assert [labels[code] for code in np.asarray(named.targets).tolist()] == cells * 4


def test_large_ids_of_parquet_and_json_stay_apart(tmp_path: Path) -> None:
    ids = [2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1]
    pq.write_table(pa.table({"x": pa.array(ids)}), tmp_path / "p")
    for number, content in enumerate([(tmp_path / "p").read_bytes(), "\n".join(json.dumps({"x": i}) for i in ids)]):
        read = Read(tmp_path / str(number), content)
        assert read.values("x") == [str(i) for i in ids]
        assert read.findings("codes_as_text")
        chosen = Read(tmp_path / f"{number}n", content, columns={"x": {"type": "number"}})
        assert chosen.values("x") == [float(i) for i in ids]


@pytest.mark.parametrize(
    ("cells", "date_format"),
    [
        (["2024-01-05", "2024-02-06"], "ISO 8601"),
        (["2024-01-05T10:30:00Z", "2024-02-06 11:00"], "ISO 8601"),
        (["05.01.2024", "31.12.2024"], "%d.%m.%Y"),
        (["1/13/2024", "2/1/2024"], "%m/%d/%Y"),
        (["13/1/2024", "2/1/2024"], "%d/%m/%Y"),
        (["1/8/90 0:00", "12/31/99 23:59"], "%m/%d/%y %H:%M"),
        (["2024/01/05", "2024/12/31"], "%Y/%m/%d"),
        (["5-Jan-2024", "31-Dec-2024"], "%d-%b-%Y"),
        (["Apr 1 2000", "Dec 31 1999"], "%b %d %Y"),
    ],
)
def test_date_formats(cells: list[str], date_format: str, tmp_path: Path) -> None:
    read = Read(tmp_path, lines("x", cells, "|"))
    assert (read.column("x")["read_as"], read.column("x")["date_format"]) == ("date", date_format)
    assert read.findings("dates")
    typed = Read(tmp_path / "json", "\n".join(json.dumps({"x": cell}) for cell in cells))
    assert typed.values("x") == read.values("x")


def test_an_ambiguous_date_is_asked_for(tmp_path: Path) -> None:
    text = lines("x", ["1/2/2024", "3/4/2024"])
    read = Read(tmp_path / "1", text)
    assert read.values("x") == ["1/2/2024", "3/4/2024"]
    assert "%m/%d/%Y or %d/%m/%Y" in read.findings("ambiguous_date")[0]
    with pytest.raises(DataError, match="may be"):
        Read(tmp_path / "2", text, columns={"x": {"type": "date"}})
    chosen = Read(tmp_path / "3", text, columns={"x": {"type": "date", "date_format": "%d/%m/%Y"}})
    assert chosen.values("x") == [1706745600.0, 1712102400.0]  # 1 February and 3 April


def test_an_option_for_a_column_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='there is no column "isg"') as refused:
        Read(tmp_path, "isig,b\n1,2\n", columns={"isg": {"type": "number"}})
    assert 'Did you mean "isig"?' in refused.value.problems[0].hint


def test_columns_that_are_read_as_categories(tmp_path: Path) -> None:
    read = Read(tmp_path, "x,y\n1,a\n2,b\n1.0,a\n", columns={"x": {"type": "category"}})
    assert read.values("x") == ["1", "2", "1.0"]


def test_apostrophes_as_quotes(tmp_path: Path) -> None:
    read = Read(tmp_path / "1", "'a','b'\n'x, y','1'\n'it''s','2'\n")
    assert (read.values("a"), read.values("b")) == (["x, y", "it's"], [1.0, 2.0])
    assert Read(tmp_path / "2", "a,b\n'tis,1\nO'Neill,2\n").values("a") == ["'tis", "O'Neill"]


def test_a_file_without_a_header_is_predicted_without_one(tmp_path: Path) -> None:
    read = Read(tmp_path, "1,2,in\n3,4,out\n5,6,in\n", "column_3")
    encoder = read.encoder()
    for body in ("3,4,out\n5,6,in\n", "3,4\n5,6\n", "column_2,column_1\n4,3\n6,5\n"):
        rows = read_request(encoder.format, body.encode(), "text/csv", encoder.names)
        assert encoder.parse(rows)[0].tolist() == [[3.0, 4.0], [5.0, 6.0]]
    with pytest.raises(InputError, match="4 values for 2 columns"):
        read_request(encoder.format, b"1,2,3,4\n", "text/csv", encoder.names)


@pytest.mark.parametrize(("cells", "sign"), [(["$1,200", "$5"], "$"), (["12 %", "7.5%"], "%"), (["5 €", "€ 6"], "€")])
def test_numbers_with_a_sign_are_said(cells: list[str], sign: str, tmp_path: Path) -> None:
    read = Read(tmp_path, lines("x", cells))
    (message,) = read.findings("numbers_with_a_sign")
    assert f"`{sign}`" in message
    assert (read.column("x")["read_as"], read.column("x")["unit"]) == ("number", sign)
    other = Read(tmp_path / "no", lines("x", [*cells, "$ and %"]))
    assert (other.findings("numbers_with_a_sign"), other.column("x")["read_as"]) == ([], "category")


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["$1,200.50", "-$3", "$-4.25", "+$ 5", "NA"], [1200.5, -3, -4.25, 5, None]),
        (["12 %", "7.5%", "-1%", ""], [12, 7.5, -1, None]),
        (["€ 3,50", "€ 1.203,5", "4,25 €"], [3.5, 1203.5, 4.25]),
        (["₹1,000", "₹12"], [1000, 12]),
    ],
)
def test_percentages_and_currencies_are_numbers(cells: list[str], expected: list[Any], tmp_path: Path) -> None:
    read = Read(tmp_path, "x;y\n" + "".join(f"{cell};{row % 2}\n" for row, cell in enumerate(cells)))
    assert read.values("x") == expected
    encoder = TableEncoder.fit(read.dataset.inputs, [read.dataset.facts.column("x")], Impute(), np.arange(len(cells)))
    again = TableEncoder.from_state(json.loads(json.dumps(encoder.state())))
    for row, (cell, value) in enumerate(zip(cells, expected, strict=True)):
        fitted = encoder.encode(read.dataset.inputs, np.array([row])).tolist()
        assert again.parse([{"x": cell}])[0].tolist() == again.parse([{"x": value}])[0].tolist() == fitted
    for wrong in ("$$5", "5 kg", "£5", "% 5 %", "--$5", "-$-5"):
        with pytest.raises(InputError, match="with or without"):
            again.parse([{"x": wrong}])


def test_cells_with_several_signs_are_text_and_units_are_asked_for(tmp_path: Path) -> None:
    assert Read(tmp_path / "a", lines("x", ["$5", "€6"])).column("x")["read_as"] == "category"
    assert Read(tmp_path / "b", lines("x", ["5 kg", "6 kg"])).column("x")["read_as"] == "category"
    kilos = Read(tmp_path / "c", lines("x", ["5 kg", "6.5kg", "7"]), columns={"x": {"type": "number", "unit": "kg"}})
    assert kilos.values("x") == [5, 6.5, 7]
    text = Read(tmp_path / "d", lines("x", ["5 %", "6 %"]), columns={"x": {"type": "category"}})
    assert text.values("x") == ["5 %", "6 %"]
    with pytest.raises(DataError, match="6 lb"):
        Read(tmp_path / "e", lines("x", ["5 kg", "6 lb"]), columns={"x": {"type": "number", "unit": "kg"}})
    names = Read(tmp_path / "f", "$5,1 %\n$6,2 %\n")
    assert list(names.dataset.inputs.columns) == ["column_1", "column_2"]


SECONDS = [1700000000.0, 1700000060.5, -86400.0]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(("date_format", "factor"), [("unix_seconds", 1), ("unix_milliseconds", 1000)])
def test_unix_times(form: str, date_format: str, factor: int, tmp_path: Path) -> None:
    times: list[Any] = [int(value * factor) if float(value * factor).is_integer() else value for value in SECONDS]
    path = tmp_path / "file"
    if form == "csv":
        path.write_text("t,y\n" + "".join(f"{value},{row % 2}\n" for row, value in enumerate(times)))
    elif form == "jsonl":
        path.write_text("".join(json.dumps({"t": value, "y": row % 2}) + "\n" for row, value in enumerate(times)))
    else:
        pq.write_table(pa.table({"t": pa.array([float(value) for value in times]), "y": [0, 1, 0]}), path)
    plain, _ = read_table(path)
    assert plain.facts.column("t").type == "numeric", "numbers are dates only where that is asked for"
    options = {"columns": {"t": {"type": "date", "date_format": date_format}}}
    dataset, details = read_table(path, reading=ReadOptions.model_validate(options))
    column = dataset.inputs.columns["t"]
    assert (column.is_date, np.asarray(column.values).tolist()) == (True, SECONDS)
    assert details["column_readings"]["t"]["date_format"] == date_format
    encoder = TableEncoder.fit(dataset.inputs, [dataset.facts.column("t")], None, np.arange(3))
    expected = encoder.encode(dataset.inputs, np.arange(3)).tolist()
    assert encoder.parse([{"t": value} for value in times])[0].tolist() == expected
    assert encoder.parse([{"t": "2023-11-14T22:13:20Z"}])[0].tolist() == expected[:1]
    for wrong in (1e18, True, "soon"):
        with pytest.raises(InputError, match="since 1970"):
            encoder.parse([{"t": wrong}])


@pytest.mark.parametrize("delimiter", [" ", ":", "~"])
def test_a_delimiter_that_is_not_detected_is_asked_for(delimiter: str, tmp_path: Path) -> None:
    text = f"a{delimiter}b\n1{delimiter}x\n2{delimiter}y\n"
    assert "set `delimiter`" in Read(tmp_path / "1", text).findings("one_column")[0]
    declared = Read(tmp_path / "2", text, delimiter=delimiter)
    assert (declared.values("a"), declared.values("b"), declared.findings("one_column")) == ([1.0, 2.0], ["x", "y"], [])
    assert Read(tmp_path / "3", "a\none two\nthree\n").findings("one_column") == []


def test_dates_may_always_be_sent_as_iso_8601(tmp_path: Path) -> None:
    read = Read(tmp_path, "day,y\n05.01.2024,a\n31.12.2024,b\n", "y")
    encoder = read.encoder()
    pq.write_table(pa.table({"day": [datetime.date(2024, 1, 6)]}), tmp_path / "p")
    bodies = [
        b"day\n06.01.2024\n",
        b"day\n2024-01-06\n",
        (tmp_path / "p").read_bytes(),
        b'{"day": "2024-01-06T00:00Z"}',
    ]
    for body in bodies:
        rows = read_request(encoder.format, body, "application/octet-stream", encoder.names)
        assert encoder.parse(rows)[0].tolist() == [[1.0]]


def test_an_unknown_charset_is_refused(tmp_path: Path) -> None:
    encoder = Read(tmp_path, "x,y\n1,a\n2,b\n", "y").encoder()
    with pytest.raises(InputError, match="the charset 'bogus' is unknown"):
        read_request(encoder.format, b"x\n1\n", "text/csv", encoder.names, charset="bogus")


def test_words_of_the_target_can_be_said_to_be_values(tmp_path: Path) -> None:
    text = "x,y\n1,NA\n2,EU\n3,NA\n"
    assert Read(tmp_path / "1", text, "y").values("y") == [None, "EU", None]
    assert Read(tmp_path / "2", text, "y", columns={"y": {"missing": []}}).values("y") == ["NA", "EU", "NA"]


def test_a_request_in_another_encoding(tmp_path: Path) -> None:
    read = Read(tmp_path, "x,y\nKöln,a\nUlm,b\n".encode("cp1252"), "y")
    encoder = read.encoder()
    for body, charset in [
        ("x\nKöln\n".encode("cp1252"), None),
        ("x\nKöln\n".encode(), None),
        ("x\nKöln\n".encode("utf-16"), None),
        ("x\nKöln\n".encode("cp850"), "cp850"),
    ]:
        rows = read_request(encoder.format, body, "text/csv", encoder.names, charset=charset)
        assert encoder.parse(rows)[0].tolist() == [[1.0, 0.0]]


def test_the_reference_lists_the_missing_words() -> None:
    page = (Path(__file__).parents[4] / "docs" / "reference" / "tables.md").read_text(encoding="utf-8")
    for label, words in (("number, date", NUMBER_MISSING), ("category, boolean", TEXT_MISSING)):
        assert f"| {label} | {', '.join(f'`{word}`' for word in words if word)} |" in page
