"""Small files that mean to become large ones, or to be read for ever: each is refused, or read within bounds."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from tests.support import hostile_files as h
from tests.support.hostile_files import ACCEPTED, Case

MIB = 2**20


def parquet(columns: Any, **options: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), buffer, **options)
    return buffer.getvalue()


def repeated_text() -> bytes:
    """120,000 rows of the same two texts of 61,000 characters: 7.3 GB as text, 2 kB as a file."""
    import pyarrow as pa

    words = pa.array(["x" * 61_000, "x" * 60_999 + "y"])
    codes = pa.array(np.arange(120_000, dtype=np.int32) % 2)
    return parquet({"a": pa.DictionaryArray.from_arrays(codes, words), "y": codes}, compression="zstd")


def many_row_groups() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    table = pa.table({f"c{i}": np.zeros(1_000_000, np.int8) for i in range(4)})
    with pq.ParquetWriter(buffer, table.schema, compression="zstd") as writer:
        for _ in range(12):
            writer.write_table(table)
    return buffer.getvalue()


def repeated_prefix(different: bool, rows: int = 1000) -> bytes:
    """Texts of 100,000 characters, each written as the end that differs from the one before."""
    start = "x" * 100_000
    texts = [start + str(i if different else i % 3) for i in range(rows)]
    return parquet({"a": texts}, use_dictionary=False, column_encoding={"a": "DELTA_BYTE_ARRAY"}, compression="zstd")


def long_list() -> bytes:
    import pyarrow as pa

    values = pa.array(np.zeros(5_000_000, np.int8))
    return parquet({"a": pa.ListArray.from_arrays(pa.array([0, 5_000_000], pa.int32()), values)}, compression="zstd")


def empty_columns(names: list[str]) -> bytes:
    import pyarrow as pa

    return parquet(pa.Table.from_arrays([pa.array([], pa.int8())] * len(names), names=names))


def unused_categories() -> bytes:
    """A dictionary of which the rows use two of three values."""
    import pyarrow as pa

    codes = pa.array(np.arange(60, dtype=np.int32) % 2)
    return parquet({"a": pa.DictionaryArray.from_arrays(codes, pa.array(["used", "too", "never"])), "y": codes})


def unique_keys(count: int, *, as_list: bool = False) -> Callable[[], bytes]:
    def make() -> bytes:
        records = [{f"k{i}": 1} for i in range(count)]
        return json.dumps(records).encode() if as_list else "\n".join(map(json.dumps, records)).encode()

    return make


def sheet(rows: str, **parts: bytes) -> bytes:
    """A workbook of one sheet with these rows, and other parts by name (`styles`, `sharedStrings`)."""
    import openpyxl

    buffer, packed = io.BytesIO(), io.BytesIO()
    book = openpyxl.Workbook()
    book.active.append(["x"])
    book.save(buffer)
    with zipfile.ZipFile(buffer) as plain, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name in plain.namelist():
            body = parts.get(name.rsplit("/", 1)[-1].removesuffix(".xml"), plain.read(name))
            if name.endswith("sheet1.xml") and rows:
                space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
                body = f'<worksheet xmlns="{space}"><sheetData>{rows}</sheetData></worksheet>'.encode()
            if "sharedStrings" in parts and name == "[Content_Types].xml":
                kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
                texts = f'<Override PartName="/xl/sharedStrings.xml" ContentType="{kind}"/></Types>'
                body = body.replace(b"</Types>", texts.encode())
            bundle.writestr(name, body)
        if "sharedStrings" in parts:
            bundle.writestr("xl/sharedStrings.xml", parts["sharedStrings"])
    return packed.getvalue()


def far_cells() -> bytes:
    """A cell in the last column of each row: 16,384 cells of a row come out of 40 bytes."""
    return sheet("".join(f'<row r="{r}"><c r="XFD{r}"><v>{r}</v></c></row>' for r in range(1, 560)))


def styles(body: bytes) -> bytes:
    space = b"http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    return sheet("", styles=b'<styleSheet xmlns="' + space + b'"><cellXfs>' + body + b"</cellXfs></styleSheet>")


def shared_strings(count: int) -> bytes:
    space = b"http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    texts = b"".join(b"<si><t>%d</t></si>" % i for i in range(count))
    cells = "".join(f'<row r="{r}"><c r="A{r}" t="s"><v>{r}</v></c></row>' for r in range(1, 30))
    return sheet(cells, sharedStrings=b'<sst xmlns="' + space + b'">' + texts + b"</sst>")


def zeros(mib: int) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, X=np.zeros((1000, mib * MIB // 8000), np.float64))
    return buffer.getvalue()


def announced(shape: str, kind: str = "<f8", version: int = 1, body: bytes = b"12345678") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + body


def in_npz(array: bytes, name: str = "X.npy") -> bytes:
    return h.zipped({name: array})


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def png_with(*chunks: bytes) -> bytes:
    raw = h.png()
    return raw[:33] + b"".join(chunks) + raw[33:]


def png_of(width: int, height: int) -> bytes:
    """A valid grey PNG of one bit a pixel."""
    header = struct.pack(">LLBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + -(-width // 8)) * height), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def webp(extended: bool) -> bytes:
    """A WebP file that announces 16,383 x 16,383 pixels, for which Pillow would make room at once."""
    side = 16_382
    if extended:
        body = b"VP8X" + struct.pack("<L", 10) + bytes(4) + side.to_bytes(3, "little") * 2
    else:
        body = b"VP8L" + struct.pack("<L", 6) + b"\x2f" + (side | side << 14).to_bytes(4, "little") + b"\0"
    rest = bytearray(h.png("RGB", (8, 8), (1, 2, 3), "WEBP", lossless=True))[12:]
    return b"RIFF" + struct.pack("<L", 4 + len(body) + len(rest)) + b"WEBP" + body + bytes(rest)


def jpeg_scans(count: int) -> bytes:
    """A progressive JPEG of 2,000 x 2,000 pixels whose last scan is there once more for each of `count`."""
    buffer = io.BytesIO()
    Image.new("L", (2000, 2000)).save(buffer, "JPEG", progressive=True)
    raw = buffer.getvalue()
    last = raw[raw.rindex(b"\xff\xda") : -2]
    return raw[:-2] + last * (count - raw.count(b"\xff\xda") + 1) + raw[-2:]


FIRST_ROW = '<row r="1"><c r="A1" t="str"><v>x</v></c></row>'


def formula(blanks: str) -> str:
    return f'<row r="2"><c r="A2"><f>1</f>{blanks}<v>1</v></c></row><row r="3"><c r="A3"><v>2</v></c></row>'


def odd_cell(attribute: str) -> str:
    return f'<row r="2"><c x=\'{attribute}\' r="A2"><v>1</v></c></row><row r="3"><c r="A3"><v>2</v></c></row>'


def frames(count: int, kind: str) -> bytes:
    buffer = io.BytesIO()
    pictures = [Image.new("L", (64, 64), i % 256) for i in range(count)]
    pictures[0].save(buffer, kind, save_all=True, append_images=pictures[1:])
    return buffer.getvalue()


def tiff(width: int) -> bytes:
    """A TIFF file whose header announces this width."""
    raw = bytearray(h.png("L", (8, 8), 7, "TIFF"))
    at = struct.unpack_from("<L", raw, 4)[0]
    for entry in range(struct.unpack_from("<H", raw, at)[0]):
        place = at + 2 + 12 * entry
        if struct.unpack_from("<H", raw, place)[0] in (256, 257, 278):
            struct.pack_into("<HHLL", raw, place, struct.unpack_from("<H", raw, place)[0], 4, 1, width)
    return bytes(raw)


def large_images(count: int) -> dict[str, bytes]:
    return {f"{'ab'[i % 2]}/{i}.png": png_of(8000, 8000) for i in range(count)}


def twice_packed_idx() -> bytes:
    images = gzip.compress(h.idx((70_000, 28, 28), bytes(70_000 * 784)), 9)
    return h.mnist(images=images, labels=gzip.compress(h.idx((70_000,), bytes(70_000)), 9))


def among(make: Callable[[], bytes], name: str = "a/bad.png") -> Callable[[], bytes]:
    """A bad image among many good ones, made when it is needed."""
    return lambda: h.among(make(), name)()


def classes_named(*names: str) -> Callable[[], bytes]:
    return lambda: h.zipped({f"{names[i % len(names)]}/{i}.png": h.png(colour=i) for i in range(30)})


def labelled(*labels: str) -> Callable[[], bytes]:
    """A table whose label column holds these, each in quotes."""
    cells = ['"' + label.replace('"', '""') + '"' for label in labels]
    return h.csv("x,label", *(f"{i},{cells[i % len(cells)]}" for i in range(40)))


PARQUET = [
    Case("long text, repeated", "x.parquet", repeated_text, ACCEPTED),
    Case("many row groups of zeros", "x.parquet", many_row_groups, "bomb", "12,000,000 rows of 4 columns"),
    Case(
        "pages of zeros",
        "x.parquet",
        lambda: parquet({f"c{i}": np.zeros(1_000_000) for i in range(10)}, compression="zstd", use_dictionary=False),
        "bomb",
        "1,000,000 rows of 10 columns",
    ),
    Case(
        "one text of 100 MiB",
        "x.parquet",
        lambda: parquet({"a": ["x" * (100 * MIB)]}, compression="zstd"),
        "bomb",
        "pages",
    ),
    Case("10,000,000 gaps", "x.parquet", lambda: parquet({"a": [None] * 10_000_000}), "bomb", "10,000,000 rows"),
    Case("text that repeats its start", "x.parquet", lambda: repeated_prefix(different=False), ACCEPTED),
    Case("different text that repeats its start", "x.parquet", lambda: repeated_prefix(True, 700), "bomb", "values"),
    Case("a list of 5,000,000 numbers", "x.parquet", long_list, "unsupported_column", "a"),
    Case("records", "x.parquet", lambda: parquet({"a": [{"b": 1}] * 4}), "unsupported_column", "a"),
    Case("binary", "x.parquet", lambda: parquet({"a": [b"\xff\x00"] * 4}), "unsupported_column", "a"),
    Case(
        "33,000 columns",
        "x.parquet",
        lambda: empty_columns([f"c{i}" for i in range(33_000)]),
        "too_many_columns",
        "33,000 columns",
    ),
    Case("one name 9,000 times", "x.parquet", lambda: empty_columns(["a"] * 9000), "duplicate_column", "a"),
    Case("an endless name", "x.parquet", lambda: parquet({"n" * 5000: [1, 2]}), "long_name", "5,000 characters"),
    Case("values that no row has", "x.parquet", unused_categories, ACCEPTED),
    Case("no rows", "x.parquet", lambda: empty_columns(["a", "b"]), "empty"),
]
JSON = [
    Case("a new field in each row", "x.jsonl", unique_keys(9000), "bomb", "9,000 rows of 9,000 columns"),
    Case("a new field in each row of a list", "x.json", unique_keys(9000, as_list=True), "bomb", "9,000 columns"),
    Case(
        "33,000 fields in a row",
        "x.jsonl",
        lambda: json.dumps({f"k{i}": i for i in range(33_000)}).encode(),
        "too_many_columns",
        "33,000",
    ),
    Case("an endless field", "x.jsonl", h.lines_of_json({"n" * 5000: 1}, {"n" * 5000: 2}), "long_name", "5,000"),
    Case("4,000,000 blank lines", "x.jsonl", lambda: b'{"x": 1}\n' + b"\n" * 4_000_000 + b'{"x": 2}\n', ACCEPTED),
    Case("escapes", "x.jsonl", lambda: b'{"x": "' + b"\\u0001" * 300_000 + b'"}\n{"x": "b"}\n', ACCEPTED),
    Case("a text of 5 MiB", "x.jsonl", h.lines_of_json({"x": "y" * (5 * MIB)}, {"x": "z"}), ACCEPTED),
    Case("minus infinities", "x.jsonl", lambda: b'{"x": -Infinity}\n{"x": NaN}\n{"x": 1e999}\n{"x": 1}\n', ACCEPTED),
    Case("brackets of a list", "x.json", lambda: b'[{"x": ' + b"[" * 200_000, "bad_json", "upload.json"),
    Case("the same field 10,000 times", "x.jsonl", lambda: b"{" + b'"x": 1, ' * 10_000 + b'"x": 1}', "bad_row", "x"),
]
DELIMITED = [
    Case(
        "99,000 columns",
        "x.csv",
        lambda: (",".join(f"c{i}" for i in range(99_000)) + "\n" + ",".join(["1"] * 99_000)).encode(),
        "too_many_columns",
        "99,000 columns",
    ),
    Case("5,000,000 delimiters", "x.csv", lambda: b"," * 5_000_000, "too_many_columns", "5,000,001"),
    Case("delimiters in a quoted value", "x.csv", h.csv("x", *['"' + "," * 40_000 + '"'] * 3), ACCEPTED),
    Case("25,000,000 short lines", "x.csv", lambda: b"x\n" + b"1\n2\n" * 12_500_000, "too_large", "25,000,001 lines"),
    Case(
        "more bad lines than good ones",
        "x.csv",
        lambda: b"x,y\n1,2\n" + b"1,2,3\n" * 400_000,
        "bad_row",
        "3 values for 2",
    ),
    Case("a cell of 11 MiB", "x.csv", lambda: b"x,y\n1," + b"a" * (11 * MIB) + b"\n", "bad_csv", "line 2"),
    Case("an endless name", "x.csv", h.csv("n" * 5000 + ",y", "1,2", "3,4"), "long_name", "5,000 characters"),
    Case("300,000 quotes", "x.csv", lambda: b"x,y\n1," + b'"' * 300_001 + b"\n2,3\n", "open_quote", "line 2"),
    Case("digits without end", "x.csv", h.rows("9" * 500_000 + ",1"), ACCEPTED),
    Case("points without end", "x.csv", h.rows("1." * 100_000 + ",1"), ACCEPTED),
    Case("separators without end", "x.csv", h.csv("x;y", *["1" + ".111" * 50_000 + ";2"] * 3), ACCEPTED),
    Case("blanks without end", "x.csv", h.rows(" " * 500_000 + "1,2"), ACCEPTED),
    Case("signs without end", "x.csv", h.rows("-" * 300_000 + ",1"), ACCEPTED),
    Case("dates without end", "x.csv", h.rows("2024-01-01" * 20_000 + ",1"), ACCEPTED),
    Case("carriage returns", "x.csv", lambda: b"x,y\r" + b"1,2\r" * 2000, ACCEPTED),
    Case("half a UTF-8 character in each cell", "x.csv", lambda: b"x,y\n" + b"\xc3,\xe2\x82\n" * 500, ACCEPTED),
    Case("quotes in aligned columns", "x.csv", lambda: b"a b c\n" + b'"' * 200_000 + b"x\n1 2 3\n", ACCEPTED),
    Case("comments before no markup", "x.csv", lambda: b"<!---->" * 500 + b"x\n1\n", "long_name", "3,501 characters"),
    Case("a delimiter line of Excel", "x.csv", lambda: b"sep=\x01\nx\x01y\n1\x012\n3\x014\n", ACCEPTED),
    Case("a table in gzip twice", "x.csv.gz", lambda: gzip.compress(gzip.compress(bytes(9 * MIB))), "damaged_archive"),
]
EXCEL = [
    Case("blanks behind a formula", "x.xlsx", lambda: sheet(FIRST_ROW + formula(" " * MIB)), ACCEPTED),
    Case("references in an attribute", "x.xlsx", lambda: sheet(FIRST_ROW + odd_cell('r="A1" ' * 150_000)), ACCEPTED),
    Case("a cell in the last column of each row", "x.xlsx", far_cells, "bomb", "cells"),
    Case(
        "a cell in the last row",
        "x.xlsx",
        lambda: sheet('<row r="1048576"><c r="A1048576"><v>1</v></c></row>'),
        ACCEPTED,
    ),
    Case("500,000 styles", "x.xlsx", lambda: styles(b"<xf/>" * 500_000), "too_large", "styles.xml"),
    Case("200,000 texts", "x.xlsx", lambda: shared_strings(200_000), ACCEPTED),
    Case("40 MiB of texts", "x.xlsx", lambda: sheet("", sharedStrings=b" " * (40 * MIB)), "bomb", "sharedStrings"),
    Case("deep XML", "x.xlsx", lambda: styles(b"<a>" * 100_000), "damaged_workbook", "upload.xlsx"),
    Case(
        "an endless attribute", "x.xlsx", lambda: sheet(f'<row r="1"><c r="{"A" * 10**6}"/></row>'), "damaged_workbook"
    ),
    Case(
        "a row of a million",
        "x.xlsx",
        lambda: sheet('<row r="1">' + "<c><v>1</v></c>" * 40_000 + "</row>"),
        "too_many_columns",
    ),
]
NUMPY = [
    Case("80 MiB of zeros", "x.npz", lambda: zeros(80), "bomb", "80 MiB"),
    Case("80 MiB of zeros, packed twice", "x.npz.gz", lambda: gzip.compress(zeros(80), 9), "bomb", "80 MiB"),
    Case("80 MiB that are no array", "x.npz", lambda: h.zipped({"X.npy": bytes(80 * MIB)}), "bomb", "80 MiB"),
    Case("a terabyte announced", "x.npz", lambda: in_npz(announced("(1099511627776,)")), "damaged_array", "announces"),
    Case("a terabyte announced alone", "x.npy", lambda: announced("(1099511627776,)"), "damaged_array", "announces"),
    Case(
        "a product beyond 64 bits",
        "x.npz",
        lambda: in_npz(announced("(2**40, 2**40)".replace("2**40", str(2**40)))),
        "damaged_array",
        "X",
    ),
    Case(
        "a text of a gigabyte", "x.npz", lambda: in_npz(announced("(1,)", "|S1000000000")), "damaged_array", "announces"
    ),
    Case(
        "a void of a gigabyte", "x.npz", lambda: in_npz(announced("(1,)", "|V1000000000")), "damaged_array", "announces"
    ),
    Case("version 2", "x.npz", lambda: in_npz(announced("(9000000000,)", version=2)), "damaged_array", "announces"),
    Case("version 3", "x.npz", lambda: in_npz(announced("(9000000000,)", version=3)), "damaged_array", "announces"),
    Case("version 9", "x.npz", lambda: in_npz(announced("(1,)", version=9)), "damaged_array", "X"),
    Case(
        "under another name",
        "x.npz",
        lambda: h.zipped({"X": announced("(9000000000,)"), "y.npy": announced("(1,)")}),
        "damaged_array",
        "announces",
        "arrays",
    ),
    Case("a negative side", "x.npz", lambda: in_npz(announced("(-1,)")), "damaged_array", "X"),
    Case("a side of none", "x.npz", lambda: in_npz(announced("(1000000000000, 0)", body=b"")), "empty", "X"),
    Case("none of a side", "x.npz", lambda: in_npz(announced("(5, 0, 1000000000)", body=b"")), "empty", "X"),
    Case("60 dimensions", "x.npz", lambda: in_npz(announced("(" + "1, " * 60 + ")")), ACCEPTED),
    Case("a header of 9,000 brackets", "x.npz", lambda: in_npz(h.npy_header("(" * 9000)), "damaged_array", "X"),
    Case(
        "2,000 arrays",
        "x.npz",
        lambda: h.zipped({f"a{i}.npy": announced("(1,)") for i in range(2000)}),
        "unknown_arrays",
    ),
    Case(
        "a tar of zeros",
        "x.tar.gz",
        lambda: gzip.compress(h.tarred({"X.npy": h.array_bytes(np.zeros((1000, 10_000)))}), 9),
        "bomb",
        "X.npy",
    ),
    Case(
        "offsets of a terabyte",
        "x.npz",
        lambda: h.zipped(
            {"values.npy": h.array_bytes(np.ones((4, 2))), "offsets.npy": announced("(99999999999,)", "<i8")}
        ),
        "damaged_array",
        "announces",
    ),
]
PIXELS = [
    Case(
        "WebP of 16,383 x 16,383", "x.zip", among(lambda: webp(extended=True), "a/bad.webp"), ACCEPTED, "16383 x 16383"
    ),
    Case(
        "lossless WebP of 16,383 x 16,383",
        "x.zip",
        among(lambda: webp(extended=False), "a/bad.webp"),
        ACCEPTED,
        "16383 x 16383",
    ),
    Case("TIFF of 60,000 x 60,000", "x.zip", among(lambda: tiff(60_000), "a/bad.tif"), ACCEPTED, "a/bad.tif"),
    Case("TIFF of 2^31 pixels a row", "x.zip", among(lambda: tiff(2**31 - 1), "a/bad.tif"), ACCEPTED, "a/bad.tif"),
    Case(
        "BMP of 60,000 x 60,000",
        "x.zip",
        among(lambda: h.patched(h.png("L", (8, 8), 1, "BMP"), 18, struct.pack("<ll", 60_000, 60_000)), "a/bad.bmp"),
        ACCEPTED,
        "a/bad.bmp",
    ),
    Case(
        "GIF of 65,535 x 65,535",
        "x.zip",
        among(lambda: h.patched(h.png("L", (8, 8), 1, "GIF"), 6, struct.pack("<HH", 65_535, 65_535)), "a/bad.gif"),
        ACCEPTED,
        "a/bad.gif",
    ),
    Case(
        "PPM of 60,000 x 60,000",
        "x.zip",
        among(lambda: b"P6 60000 60000 255\n" + bytes(90), "a/bad.ppm"),
        ACCEPTED,
        "a/bad.ppm",
    ),
    Case("PNG without pixels", "x.zip", among(lambda: h.patched(h.png(), 16, bytes(8))), ACCEPTED, "a/bad.png"),
    Case(
        "a profile of 64 MiB",
        "x.zip",
        among(lambda: png_with(chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(64 * MIB), 9)))),
        ACCEPTED,
    ),
    Case(
        "international text of 64 MiB",
        "x.zip",
        among(lambda: png_with(chunk(b"iTXt", b"c\0\1\0\0\0" + zlib.compress(bytes(64 * MIB), 9)))),
        ACCEPTED,
    ),
    Case("50,000 chunks", "x.zip", among(lambda: png_with(chunk(b"tEXt", b"k\0v") * 50_000)), ACCEPTED),
    Case("a GIF of 300 frames", "x.zip", among(lambda: frames(300, "GIF"), "a/moving.gif"), ACCEPTED),
    Case("a PNG of 300 frames", "x.zip", among(lambda: frames(300, "PNG"), "a/moving.png"), ACCEPTED),
    Case("large empty images", "x.zip", lambda: h.zipped(large_images(16)), "bomb", "8,000 x 8,000"),
    Case(
        "large empty images in a tar",
        "x.tar.gz",
        lambda: gzip.compress(h.tarred(large_images(4)), 9),
        "bomb",
        "8,000 x 8,000",
    ),
    Case("JPEG of 2,000 scans", "x.zip", among(lambda: jpeg_scans(2000), "a/bad.jpg"), ACCEPTED, "2,001 scans"),
    Case("one large empty image", "x.zip", lambda: h.zipped({**h.good(), **large_images(1)}), ACCEPTED),
    Case("pixels of IDX packed twice", "x.zip", twice_packed_idx, "bomb", "train-images"),
]
TEXT = [
    Case("a class of mathematics", "x.zip", classes_named(r"$\frac{$", "b"), ACCEPTED),
    Case("classes of escapes", "x.zip", classes_named("\x1b[2Ja", "\u202eb"), ACCEPTED),
    Case("a class on two lines", "x.zip", classes_named("a\u2028b", "c\nd"), ACCEPTED),
    Case("a class of 4,000 characters", "x.zip", classes_named("a" * 4000, "b"), ACCEPTED),
    Case("labels of formulas", "x.csv", labelled("=1+1", "@SUM(A1)", r"$\frac{$"), ACCEPTED),
    Case("labels of controls", "x.csv", labelled("a\x1b[31m", "b\x07", "\u2029c"), ACCEPTED, "", None, "label"),
    Case("long labels", "x.csv", labelled(*(f"{i}" * 200_000 for i in range(9))), ACCEPTED, "", None, "label"),
    Case("labels on several lines", "x.csv", labelled("a\nb", "c\rd"), ACCEPTED, "", None, "label"),
    Case("labels of 100,000 characters", "x.csv", labelled("a" * 100_000, "b" * 100_000), ACCEPTED, "", None, "label"),
    Case(
        "columns of controls",
        "x.csv",
        h.csv("\x1b]0;x\x07,\u202ey,z\u2028", *(f"{i},{i},{i}" for i in range(30))),
        ACCEPTED,
    ),
    Case("a column of nothing to see", "x.csv", h.csv("\u200b,\ufeffy", "1,2", "3,4"), ACCEPTED),
    Case("emoji and combining marks", "x.csv", labelled("👩‍👩‍👧", "e" + "\u0301" * 500), ACCEPTED, "", None, "label"),
]
GROUPS = {
    "parquet bomb": PARQUET,
    "json bomb": JSON,
    "delimited bomb": DELIMITED,
    "excel bomb": EXCEL,
    "numpy bomb": NUMPY,
    "pixel bomb": PIXELS,
    "text": TEXT,
}
BOMBS = [(f"{group}: {case.name} ({case.file})", case) for group, cases in GROUPS.items() for case in cases]
