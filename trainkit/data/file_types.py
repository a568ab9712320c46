"""What a file is by its first bytes, where it is no dataset that is read: to name it, and what to do instead."""

from __future__ import annotations

import re
from typing import NamedTuple

from trainkit.data.errors import DataError, data_error

UTF16_SAMPLE = 512


class FileType(NamedTuple):
    """A type of file that no reader takes, and what its owner can do."""

    name: str
    hint: str


IMAGE = "Upload the images in one folder for each class, as a zip or tar."
AS_CSV = "Open it in the program it belongs to, and export the table as CSV, .xlsx or Parquet."
FROM_PYTHON = "Write the table as Parquet or CSV, or arrays with numpy.savez."
ARCHIVE = "Make the archive again as zip or tar.gz."
DOWNLOAD = "Check the address or the login of the download, and upload the file itself."

MAGIC: tuple[tuple[int, bytes, FileType], ...] = (
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", FileType("an old Excel workbook (.xls), or one with a password", "")),
    (0, b"%PDF-", FileType("a PDF document", "Export the table behind it as CSV or .xlsx.")),
    (0, b"SQLite format 3\x00", FileType("a SQLite database", "Export one table as CSV, or write it as Parquet.")),
    (0, b"\x89PNG\r\n\x1a\n", FileType("a PNG image", IMAGE)),
    (0, b"\xff\xd8\xff", FileType("a JPEG image", IMAGE)),
    (0, b"GIF87a", FileType("a GIF image", IMAGE)),
    (0, b"GIF89a", FileType("a GIF image", IMAGE)),
    (8, b"WEBP", FileType("a WebP image", IMAGE)),
    (0, b"II*\x00", FileType("a TIFF image", IMAGE)),
    (0, b"MM\x00*", FileType("a TIFF image", IMAGE)),
    (8, b"WAVE", FileType("a WAV sound file", "Upload arrays or sequences of its samples.")),
    (4, b"ftyp", FileType("a video, or a HEIC image", "Upload PNG or JPEG images in class folders.")),
    (0, b"ARROW1", FileType("an Arrow (Feather) file", "Write the table as Parquet: pyarrow.parquet.write_table.")),
    (0, b"Obj\x01", FileType("an Avro file", FROM_PYTHON)),
    (0, b"\x89HDF\r\n\x1a\n", FileType("an HDF5 file", FROM_PYTHON)),
    (0, b"CDF\x01", FileType("a NetCDF file", FROM_PYTHON)),
    (0, b"MATLAB 5.0 MAT-file", FileType("a MATLAB file", FROM_PYTHON)),
    (0, b"RDX2\n", FileType("an R data file", "Write the table in R with write.csv.")),
    (0, b"RDX3\n", FileType("an R data file", "Write the table in R with write.csv.")),
    (0, b"X\n\x00\x00\x00", FileType("an R data file (.rds)", "Write the table in R with write.csv.")),
    (0, b"$FL2", FileType("an SPSS file", AS_CSV)),
    (0, b"<stata_dta>", FileType("a Stata file", AS_CSV)),
    (0, b"{\\rtf", FileType("a document in rich text (RTF)", AS_CSV)),
    (0, b"Rar!\x1a\x07", FileType("a RAR archive", ARCHIVE)),
    (0, b"7z\xbc\xaf\x27\x1c", FileType("a 7-Zip archive", ARCHIVE)),
    (0, b"\x7fELF", FileType("a program", "Upload the data itself.")),
    (
        0,
        b"version https://git-lfs.github.com/spec/",
        FileType("a Git LFS pointer, not the file", "Run `git lfs pull`."),
    ),
)
OLD_EXCEL = "Save it as .xlsx without a password in a spreadsheet program, or export the sheet as CSV."
PICKLE = re.compile(rb"\x80[\x02-\x05](?:\x95.{8})?[\]}c(\x8cX]", re.DOTALL)
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
MARKUP = re.compile(
    rb"\s*+(?:<!--(?:(?!-->).)*+-->\s*+)*+<(?P<tag>!doctype html|html|head|body|table|\?xml|svg)\b", re.I | re.S
)
"""Possessive: a comment that may also end later would be tried at every end, 2^n times for n comments."""
OFFICE = (
    ("xl/workbook.bin", FileType("a binary Excel workbook (.xlsb)", OLD_EXCEL)),
    ("word/document.xml", FileType("a Word document", AS_CSV)),
    ("ppt/presentation.xml", FileType("a PowerPoint presentation", AS_CSV)),
    ("content.xml", FileType("an OpenDocument file (.ods, .odt)", "Save the sheet as .xlsx or CSV.")),
    ("Index/Document.iwa", FileType("an Apple Numbers or Pages document", "Export the sheet as .xlsx or CSV.")),
)
"""The entry of a zip that tells office documents."""


def other_type(start: bytes, *, encoded: bool = False) -> FileType | None:
    """Return what a file is by its first bytes (4096, say), None for what may be a table, an array or an archive.

    `encoded`: the encoding of its text is known, so that UTF-16 needs no byte-order mark.
    """
    for offset, magic, found in MAGIC:
        if start[offset : offset + len(magic)] == magic:
            return found if found.hint else found._replace(hint=OLD_EXCEL)
    if start.startswith(b"ORC") and CONTROL.search(start[3:64]):
        return FileType("an ORC file", FROM_PYTHON)
    if PICKLE.match(start):
        return FileType("a Python pickle, which could run code when it is read", FROM_PYTHON)
    if markup := MARKUP.match(start.removeprefix(b"\xef\xbb\xbf")):
        page = markup["tag"].lower() not in (b"?xml", b"svg") or b"<html" in start.lower()
        return FileType("an HTML page" if page else "an XML document", DOWNLOAD if page else AS_CSV)
    if not encoded and (encoding := _utf16_without_mark(start)):
        hint = f"Set `encoding` to {encoding}, or save the file as UTF-8."
        return FileType("text in UTF-16 without a byte-order mark", hint)
    return None


def office_type(entries: list[str]) -> FileType | None:
    """Return the office document whose archive has these entries, None for other archives."""
    listed = set(entries)
    if "content.xml" in listed and "META-INF/manifest.xml" not in listed:
        listed.discard("content.xml")
    return next((found for entry, found in OFFICE if entry in listed), None)


def wrong_type(found: FileType, where: str) -> DataError:
    """Return the error that names a file as what it is."""
    return data_error("wrong_file_type", f"this is {found.name}, which is not read", where, found.hint)


def refuse_other_types(start: bytes, where: str, *, encoded: bool = False) -> None:
    """Raise DataError for a file that is none that is read, by its first bytes. `encoded` as in `other_type`."""
    if found := other_type(start, encoded=encoded):
        raise wrong_type(found, where)


def _utf16_without_mark(start: bytes) -> str | None:
    """Return utf-16-le or utf-16-be where every second byte is NUL, as in ASCII text."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None
    sample = start[: min(len(start) // 2 * 2, UTF16_SAMPLE)]
    if len(sample) < 8:
        return None
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if odd > 0.9 * half and not even:
        return "utf-16-le"
    return "utf-16-be" if even > 0.9 * half and not odd else None
