"""A wrong file is named as what it is, at intake and at predict, whatever its name says."""

from __future__ import annotations

import gzip
import io
import pickle
import sqlite3
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trainkit.data import load_dataset
from trainkit.data.errors import DataError, InputError
from trainkit.data.table.column_format import ColumnFormat
from trainkit.data.table.dialect import Dialect
from trainkit.data.table.request_rows import read_request
from trainkit.data.table.table_format import TableFormat
from trainkit.spec.read_options import ReadOptions

CSV = b"x,y\n1,a\n2,b\n"
TABLE = pa.table({"x": [1, 2], "y": ["a", "b"]})


def image(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, kind)
    return buffer.getvalue()


def sqlite() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (x)")
    return connection.serialize()


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name in names:
            bundle.writestr(name, "<x/>")
    return buffer.getvalue()


def feather() -> bytes:
    buffer = io.BytesIO()
    pyarrow.feather.write_feather(TABLE, buffer)
    return buffer.getvalue()


def orc() -> bytes:
    buffer = io.BytesIO()
    pyarrow.orc.write_table(TABLE, buffer)
    return buffer.getvalue()


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(TABLE, buffer)
    return buffer.getvalue()


WRONG = {
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an old Excel workbook (.xls)"),
    "xlsb": (zipped("[Content_Types].xml", "xl/workbook.bin"), "a binary Excel workbook (.xlsb)"),
    "ods": (zipped("mimetype", "content.xml", "META-INF/manifest.xml"), "an OpenDocument file"),
    "docx": (zipped("[Content_Types].xml", "word/document.xml"), "a Word document"),
    "pptx": (zipped("[Content_Types].xml", "ppt/presentation.xml"), "a PowerPoint presentation"),
    "pdf": (b"%PDF-1.7\n1 0 obj\n<< >>\nendobj\n", "a PDF document"),
    "rtf": (b"{\\rtf1\\ansi x}", "a document in rich text"),
    "html": (b"\n<!DOCTYPE html>\n<html><body>Please log in</body></html>", "an HTML page"),
    "html with a mark": (b"\xef\xbb\xbf<!-- x --><HTML><table><tr><td>1</td></tr></table></HTML>", "an HTML page"),
    "xhtml": (b'<?xml version="1.0"?><!DOCTYPE html><html/>', "an HTML page"),
    "xml": (b'<?xml version="1.0"?>\n<rows><row x="1"/></rows>', "an XML document"),
    "png": (image("PNG"), "a PNG image"),
    "jpeg": (image("JPEG"), "a JPEG image"),
    "gif": (image("GIF"), "a GIF image"),
    "webp": (image("WEBP"), "a WebP image"),
    "tiff": (image("TIFF"), "a TIFF image"),
    "sqlite": (sqlite(), "a SQLite database"),
    "feather": (feather(), "an Arrow (Feather) file"),
    "orc": (orc(), "an ORC file"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file"),
    "pickle": (pickle.dumps({"x": [1, 2]}), "a Python pickle"),
    "pickle of an array": (pickle.dumps(np.ones(3)), "a Python pickle"),
    "stata": (b"<stata_dta><header>", "a Stata file"),
    "rar": (b"Rar!\x1a\x07\x01\x00" + bytes(40), "a RAR archive"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(40), "a 7-Zip archive"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n", "a Git LFS pointer"),
    "utf-16-le": ("x,y\n1,a\n2,b\n".encode("utf-16-le"), "text in UTF-16 without a byte-order mark"),
    "utf-16-be": ("x,y\n1,a\n2,b\n".encode("utf-16-be"), "text in UTF-16 without a byte-order mark"),
}
FORMAT = TableFormat(
    dialect=Dialect(), columns=(ColumnFormat(name="x", type="number"), ColumnFormat(name="y", type="category"))
)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("kind", [None, "table"])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_named(tmp_path: Path, name: str, kind: str | None, packed: bool) -> None:
    data, noun = WRONG[name]
    (tmp_path / "data.csv").write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(DataError) as error:
        load_dataset(tmp_path / "data.csv", kind=kind)
    (problem,) = error.value.problems
    assert problem.code == "wrong_file_type"
    assert problem.message.startswith(f"this is {noun}")
    assert problem.hint


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_body_is_named(name: str) -> None:
    data, noun = WRONG[name]
    with pytest.raises(InputError) as error:
        read_request(FORMAT, data, "text/csv", ["x", "y"])
    (problem,) = error.value.problems
    assert noun in problem.message
    assert problem.hint


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (CSV, "text"),
        (gzip.compress(CSV), "text"),
        (parquet(), "a Parquet file"),
        (CSV.decode().encode("utf-16"), "text"),
    ],
    ids=["text", "gzip", "parquet", "utf-16"],
)
@pytest.mark.parametrize("name", ["data.csv", "data.xlsx", "data.pdf"])
def test_a_good_file_is_read_whatever_its_name(tmp_path: Path, data: bytes, reason: str, name: str) -> None:
    (tmp_path / name).write_bytes(data)
    dataset = load_dataset(tmp_path / name)
    assert dataset.facts.samples == 2
    assert [column.name for column in dataset.facts.columns or ()] == ["x", "y"]


def test_text_in_utf16_is_read_once_its_encoding_is_said(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes("x,y\n1,a\n2,b\n".encode("utf-16-le"))
    assert load_dataset(tmp_path / "data.csv", reading=ReadOptions(encoding="utf-16-le")).facts.samples == 2


def test_a_pdf_stays_a_pdf_when_an_encoding_is_said(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(WRONG["pdf"][0])
    with pytest.raises(DataError, match="a PDF document"):
        load_dataset(tmp_path / "data.csv", reading=ReadOptions(encoding="cp1252"))


@pytest.mark.parametrize(
    "text",
    [
        *("GIFs,count\na,1\nb,2\n", "ORCHID,n\na,1\nb,2\n", "Objective,n\na,1\nb,2\n", "MM,n\na,1\nb,2\n"),
        *("<5,n\na,1\nb,2\n", "title,n\n<html>,1\nb,2\n", "version,n\na,1\nb,2\n", "X\n1\n2\n"),
        *("a\tftyp,n\na,1\nb,2\n", "program,n\na,1\nb,2\n"),
    ],
)
def test_text_that_only_looks_like_another_type_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.csv").write_text(text)
    assert load_dataset(tmp_path / "data.csv").facts.samples == 2
