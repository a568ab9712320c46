"""Excel workbooks: typed cells, the choice of a sheet, and what is refused or said instead of being misread."""

from __future__ import annotations

import datetime
import gzip
import io
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
from PIL import Image

from trainkit.data import Dataset, load_dataset, prepare
from trainkit.data.dataset import ImageInputs, SequenceInputs, TableInputs
from trainkit.data.errors import DataError, InputError
from trainkit.data.limits import ReadLimits, limited
from trainkit.data.table.request_rows import read_request
from trainkit.data.table.table_format import TableFormat
from trainkit.spec.read_options import ReadOptions

Edit = Callable[[Any], None]


def workbook(*sheets: tuple[str, Sequence[Sequence[Any]]], edit: Edit | None = None) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets:
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    if edit:
        edit(book.worksheets[0])
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def rewritten(data: bytes, change: Callable[[bytes], bytes], entry: str = "xl/worksheets/sheet1.xml") -> bytes:
    """The workbook with one of its parts changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            body = old.read(info)
            new.writestr(info.filename, change(body) if info.filename == entry else body)
    return buffer.getvalue()


class Read:
    """A workbook that was taken in."""

    def __init__(self, folder: Path, data: bytes, name: str = "upload", **options: Any) -> None:
        (folder / name).write_bytes(data)
        reading = ReadOptions.model_validate(options)
        self.facts, self.report = prepare(folder / name, folder / "prepared", reading=reading)
        inputs = Dataset.load(folder / "prepared").inputs
        assert isinstance(inputs, TableInputs)
        self.inputs = inputs

    @property
    def format(self) -> TableFormat:
        assert self.inputs.format is not None
        return self.inputs.format

    def values(self, name: str) -> list[Any]:
        column = self.inputs.columns[name]
        if column.categories is None:
            return [None if np.isnan(value) else value for value in column.values.tolist()]
        return [None if code < 0 else column.categories[code] for code in column.values.tolist()]

    def finding(self, code: str) -> str:
        (found,) = [found for found in self.report["findings"] if found["code"] == code]
        return f"{found['where']}: {found['message']}"


def refused(folder: Path, data: bytes, name: str = "data.xlsx", **options: Any) -> tuple[str, str, str]:
    (folder / name).write_bytes(data)
    with pytest.raises(DataError) as error:
        load_dataset(folder / name, reading=ReadOptions.model_validate(options))
    (problem,) = error.value.problems
    assert problem.hint
    return problem.code, problem.where, problem.message


TYPED = [
    ["day", "at", "n", "code", "ok", "clock", "word"],
    [datetime.date(2024, 1, 31), datetime.datetime(2024, 1, 31, 12, 30), 1, "00501", True, datetime.time(3, 4), "NA"],
    [datetime.date(2024, 2, 1), datetime.datetime(2024, 2, 1), 2.5, "01002", False, datetime.time(23, 0), "null"],
    [None, None, None, " ", None, None, "None"],
]


def test_cells_have_their_types_and_text_is_never_missing(tmp_path: Path) -> None:
    read = Read(tmp_path, workbook(("Data", TYPED)))
    assert read.report["detected_because"] == "an Excel workbook"
    types = {column["name"]: column["read_as"] for column in read.report["columns"]}
    assert types == {
        **{"day": "date", "at": "date", "n": "number", "code": "category"},
        **{"ok": "boolean", "clock": "category", "word": "category"},
    }
    day = datetime.datetime(2024, 1, 31, tzinfo=datetime.UTC).timestamp()
    assert read.values("day") == [day, day + 86400, None]
    assert read.values("at") == [day + 12.5 * 3600, day + 86400, None]
    assert read.values("n") == [1, 2.5, None]
    assert read.values("code") == ["00501", "01002", " "]
    assert read.values("ok") == ["true", "false", None]
    assert read.values("clock") == ["03:04:00", "23:00:00", None]
    assert read.values("word") == ["NA", "null", "None"]
    assert 'the sheet "Data" was read' in read.finding("sheet")


def test_error_cells_are_missing_and_said_and_the_same_words_as_text_stay_text(tmp_path: Path) -> None:
    def mark(sheet: Any) -> None:
        for cell in ("A3", "A4", "B4"):
            sheet[cell].data_type = "e"
        sheet["B3"].data_type = "s"

    rows = [["x", "w"], [1, "a"], ["#N/A", "#N/A"], ["#DIV/0!", "#REF!"], [4, "b"]]
    read = Read(tmp_path, workbook(("S", rows), edit=mark))
    assert read.values("x") == [1, None, None, 4]
    assert read.values("w") == ["a", "#N/A", None, "b"]
    assert read.finding("error_cells").endswith(": #N/A (once), #DIV/0! (once), #REF! (once)")


def test_the_first_visible_sheet_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    def hide(sheet: Any) -> None:
        sheet.sheet_state = "hidden"

    data = workbook(("notes", [["n"], [0]]), ("May", [["x"], [1], [2]]), ("June", [["x"], [3], [4]]), edit=hide)
    read = Read(tmp_path, data)
    assert read.values("x") == [1, 2]
    assert 'the workbook\'s other sheets are "notes", "June": set `sheet`' in read.finding("sheet")
    (tmp_path / "again").mkdir()
    assert Read(tmp_path / "again", data, sheet="June").values("x") == [3, 4]
    code, where, message = refused(tmp_path, data, sheet="july")
    assert (code, where, message) == ("missing_sheet", "sheet", 'there is no sheet "july"')


def test_a_sheet_of_a_file_that_has_none_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, b"x,y\n1,2\n3,4\n", "data.csv", sheet="May")[0] == "not_excel"


def test_a_table_may_begin_anywhere_and_that_is_said(tmp_path: Path) -> None:
    rows = [[], [], [None, "x", "y"], [None, 1, "a"], [], [None, 2, "b"]]
    read = Read(tmp_path, workbook(("S", rows)))
    assert (read.values("x"), read.values("y")) == ([1, 2], ["a", "b"])
    assert "the table begins in cell B3" in read.finding("table_start")
    assert "1 empty row between others left out (5)" in read.finding("empty_rows")


@pytest.mark.parametrize(
    ("rows", "header", "names"),
    [
        ([["x", "y"], [1, 2]], None, ["x", "y"]),
        ([["a", "b"], ["c", "d"]], None, ["a", "b"]),
        ([["site", 2023, 2024], ["a", 1, 2], ["b", 3, 4]], None, ["column_1", "column_2", "column_3"]),
        ([["site", 2023, 2024], ["a", 1, 2], ["b", 3, 4]], True, ["site", "2023", "2024"]),
        ([["t", 2023, 2024], [1, 1, 2], [2, 3, 4]], None, ["t", "2023", "2024"]),
        ([[1, 2], [3, 4]], None, ["column_1", "column_2"]),
        ([["a", "b"], ["c", "d"]], False, ["column_1", "column_2"]),
        ([[None, "x"], [0, 5], [1, 6]], None, ["column_1", "x"]),
        ([["x", None, "y"], [1, None, 2], [3, None, 4]], None, ["x", "y"]),
    ],
)
def test_names_of_columns(tmp_path: Path, rows: list[list[Any]], header: bool | None, names: list[str]) -> None:
    options = {} if header is None else {"header": header}
    read = Read(tmp_path, workbook(("S", rows)), **options)
    assert list(read.inputs.columns) == names


def test_what_would_be_misread_is_refused_with_its_place(tmp_path: Path) -> None:
    table = [["x", "y", "z"], [1, 2, 3], [4, 5, 6]]
    title = [["Sales of May"], [], *table]
    assert refused(tmp_path, workbook(("S", title))) == (
        "title_rows",
        'sheet "S", row 1',
        'the row holds only "Sales of May", so it is no row of names',
    )
    merged = workbook(("S", table), edit=lambda sheet: sheet.merge_cells("A2:A3"))
    assert refused(tmp_path, merged)[:2] == ("merged_cells", 'sheet "S", A2:A3')
    stray = workbook(("S", [*table, [7, 8, 9, None, "see notes"]]))
    assert refused(tmp_path, stray)[:2] == ("outside_table", 'sheet "S", cell E4')
    twice = workbook(("S", [["x", "x"], [1, 2]]))
    assert refused(tmp_path, twice)[:2] == ("duplicate_column", 'sheet "S", row 1')
    empty = workbook(("S", []), ("T", table))
    assert refused(tmp_path, empty)[0] == "empty"


def test_a_formula_without_its_result_is_refused_and_one_with_it_is_read(tmp_path: Path) -> None:
    data = workbook(("S", [["x", "y"], [1, "=A2*2"], [2, "=A3*2"]]))
    assert refused(tmp_path, data)[:2] == ("no_result", 'sheet "S", cell B2')

    def calculate(xml: bytes) -> bytes:
        return re.sub(rb"(<f>A(\d)\*2</f>)<v ?(?:/>|></v>)", rb"\1<v>\g<2>0</v>", xml)

    assert Read(tmp_path, rewritten(data, calculate)).values("y") == [20, 30]


def test_a_wrong_dimension_in_the_file_loses_no_cells(tmp_path: Path) -> None:
    data = workbook(("S", [["x", "y"], [1, 2], [3, 4]]))
    narrow = rewritten(data, lambda xml: re.sub(rb'<dimension ref="[^"]*"', b'<dimension ref="A1:A2"', xml))
    assert Read(tmp_path, narrow).values("y") == [2, 4]


def test_bombs_and_damage_are_refused(tmp_path: Path) -> None:
    data = workbook(("S", [["x", "y"], [1, 2], [3, 4]]))
    bomb = rewritten(data, lambda xml: xml + b" " * 64 * 2**20)
    assert refused(tmp_path, bomb)[0] == "bomb"
    far = rewritten(data, lambda xml: xml.replace(b'<row r="3"', b'<row r="99999999"').replace(b'"A3"', b'"A99999999"'))
    assert refused(tmp_path, far)[0] == "damaged_workbook"
    for part in ("xl/workbook.xml", "xl/worksheets/sheet1.xml", "xl/styles.xml"):
        assert refused(tmp_path, rewritten(data, lambda xml: xml[: len(xml) // 2], part))[0] == "damaged_workbook"
    with limited(ReadLimits(cells=5)):
        assert refused(tmp_path, data)[0] == "too_large"


def test_expanding_entities_are_refused(tmp_path: Path) -> None:
    entities = b"".join(b'<!ENTITY e%d "%s">' % (n + 1, b"&e%d;" % n * 10) for n in range(9))
    doctype = b'<!DOCTYPE w [<!ENTITY e0 "0123456789">' + entities + b"]>"

    def plant(xml: bytes) -> bytes:
        return doctype + xml[xml.index(b"<worksheet") :].replace(b"<v>1</v>", b"<v>&e9;</v>")

    assert refused(tmp_path, rewritten(workbook(("S", [["x"], [1], [2]])), plant))[0] == "damaged_workbook"


def request(read: Read, data: bytes, features: Sequence[str]) -> tuple[dict[str, list[Any]], Sequence[str]]:
    rows = read_request(read.format, data, "application/octet-stream", features)
    return rows.columns, rows.places


def test_a_request_may_be_a_workbook(tmp_path: Path) -> None:
    read = Read(tmp_path, workbook(("Data", TYPED), ("Notes", [["n"]])))
    rows = [["n", "day", "word"], [3, datetime.date(2024, 1, 31), "NA"], [None, None, None], [4, None, None]]
    columns, places = request(read, workbook(("Sheet1", rows)), ["day", "n", "word"])
    assert columns == {"n": [3, 4], "day": ["2024-01-31", None], "word": ["NA", None]}
    assert places == ["sheet row 2", "sheet row 4"]
    with pytest.raises(InputError, match="but cannot be read as one"):
        request(read, workbook(("Sheet1", rows))[:-300], ["n"])
    two = [("Other", [["n"], [1]]), ("Data", [["n"], [2]])]
    assert request(read, workbook(*two), ["n"])[0] == {"n": [2]}
    with pytest.raises(InputError, match='there is no sheet "Data"'):
        request(read, workbook(("A", [["n"], [1]]), ("B", [["n"], [1]])), ["n"])


def test_a_model_of_a_text_file_reads_a_workbook(tmp_path: Path) -> None:
    rows = "".join(f"{day:02d}.03.2024;{day},5\n" for day in range(1, 29))
    read = Read(tmp_path, f"day;x\n{rows}".encode(), "data.csv")
    assert read.format["day"].date_format == "%d.%m.%Y"
    body = workbook(("S", [["day", "x"], [datetime.date(2024, 3, 5), 5.5]]))
    columns, _ = request(read, body, ["day", "x"])
    assert [read.format[name].read(columns[name][0]) for name in ("day", "x")] == [
        datetime.datetime(2024, 3, 5, tzinfo=datetime.UTC).timestamp(),
        5.5,
    ]
    with pytest.raises(InputError, match='holds the sheets "A", "B"'):
        request(read, workbook(("A", [["x"], [1]]), ("B", [["x"], [1]])), ["day", "x"])


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as bundle:
        for name, data in files.items():
            bundle.writestr(name, data)
    return path


def test_a_workbook_in_an_archive_or_packed_with_gzip_is_a_table(tmp_path: Path) -> None:
    data = workbook(("S", [["x", "y"], [1, "a"], [2, "b"]]))
    (tmp_path / "one.gz").write_bytes(gzip.compress(data))
    for path in (zipped(tmp_path / "one.zip", {"notes.txt": b"-", "May/data.xlsx": data}), tmp_path / "one.gz"):
        inputs = load_dataset(path).inputs
        assert isinstance(inputs, TableInputs)
        assert inputs.columns["x"].values.tolist() == [1, 2]


def test_a_workbook_may_hold_sequences_in_long_form(tmp_path: Path) -> None:
    rows = [["id", "x", "label"], *([n // 3, n, n // 3 % 2] for n in range(12))]
    (tmp_path / "data").write_bytes(workbook(("S", rows)))
    dataset = load_dataset(tmp_path / "data", kind="sequences")
    assert isinstance(dataset.inputs, SequenceInputs)
    assert dataset.facts.samples == 4
    assert dataset.inputs.values[:, 0].tolist() == list(range(12))


def test_a_workbook_may_label_images(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("L", (4, 4), 200).save(picture, "PNG")
    images = {f"{n}.png": picture.getvalue() for n in range(4)}
    table = workbook(("S", [["file", "label"], *([name, "ab"[n % 2]] for n, name in enumerate(images))]))
    dataset = load_dataset(zipped(tmp_path / "d.zip", {**images, "labels.xlsx": table}))
    assert isinstance(dataset.inputs, ImageInputs)
    assert (dataset.facts.samples, dataset.facts.classes) == (4, {"a": 2, "b": 2})
