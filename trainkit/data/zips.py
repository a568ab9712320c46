"""Zip archives: a checked directory, and entries that any process can read in any order."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from trainkit.data.errors import data_error
from trainkit.data.reasons import damage_reason

LOCAL = struct.Struct("<4s5H3L2H")
"""A local header: signature, version, flags, method, time, date, CRC, two sizes, lengths of name and extra field."""
ENCRYPTED, UTF8 = 0x1, 0x800
SPARE = 64
"""Bytes read in addition for the extra field, so that one read fetches header and data."""
HINT = "Create the archive again, and check that the upload was complete."


def zip_entries(path: Path) -> list[zipfile.ZipInfo]:
    """Return the entries of the directory. Raises zipfile's errors for damage, DataError for overlapping entries."""
    stat = path.stat()
    return _read_directory(str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1)
def _read_directory(path: str, *_: int) -> list[zipfile.ZipInfo]:
    # preparing a dataset reads the directory three times, and parsing 60,000 entries takes half a second
    with zipfile.ZipFile(path) as bundle:
        listed = bundle.infolist()
    _refuse_overlaps(listed)
    return listed


def _refuse_overlaps(listed: list[zipfile.ZipInfo]) -> None:
    end, previous = -1, ""
    for info in sorted(listed, key=lambda i: i.header_offset):
        if info.header_offset < end:
            message = f"the entry overlaps {previous!r}, as in a zip bomb"
            raise data_error("overlapping_entries", message, info.filename[:300], HINT)
        end, previous = info.header_offset + LOCAL.size + info.compress_size, info.filename[:100]


class ZipReader:
    """An open zip, read by `pread`, so that forked processes may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")

    def reader(self, info: zipfile.ZipInfo, name: str) -> Callable[[], bytes]:
        """Return a function that reads the entry. It raises DataError for a damaged entry."""
        return lambda: self.read(info, name)

    def read(self, info: zipfile.ZipInfo, name: str) -> bytes:
        """Return the entry's bytes, checked against size and checksum in the directory."""
        head = LOCAL.size + len(info.orig_filename.encode("utf-8", "replace")) + SPARE
        raw = self._at(info.header_offset, head + info.compress_size)
        if len(raw) < LOCAL.size or raw[:4] != b"PK\x03\x04":
            raise data_error("damaged_entry", "there is no entry at the position in the directory", name, HINT)
        fields = LOCAL.unpack_from(raw)
        flags, method, length, extra = fields[2], fields[3], fields[9], fields[10]
        start = LOCAL.size + length + extra
        local = raw[LOCAL.size : LOCAL.size + length].decode("utf-8" if flags & UTF8 else "cp437", "replace")
        if local != info.orig_filename:
            raise data_error(
                "damaged_entry",
                f"the name in the directory differs from that in the entry: {local[:100]!r}",
                name,
                HINT,
            )
        if flags & ENCRYPTED:
            raise data_error("encrypted", "the entry is encrypted", name, "Make the archive without a password.")
        packed = raw[start : start + info.compress_size]
        if len(packed) < info.compress_size:
            packed = self._at(info.header_offset + start, info.compress_size)
        data = self._unpack(info, method, packed, name)
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise data_error("damaged_entry", "length or checksum differ from the directory", name, HINT)
        return data

    def _unpack(self, info: zipfile.ZipInfo, method: int, packed: bytes, name: str) -> bytes:
        if method == zipfile.ZIP_STORED:
            return packed
        if method == zipfile.ZIP_DEFLATED:
            try:
                return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, info.file_size + 1)
            except zlib.error as error:
                raise data_error(
                    "damaged_entry", f"the entry cannot be unpacked: {damage_reason(error)}", name, HINT
                ) from None
        try:
            with zipfile.ZipFile(self._path) as bundle, bundle.open(info) as file:
                return file.read(info.file_size + 1)
        except (NotImplementedError, RuntimeError):
            message = f"compression method {method} is not supported"
            raise data_error("unknown_compression", message, name, "Use deflate, or no compression.") from None
        except Exception as error:  # the decompressors of bzip2 and LZMA raise OSError, EOFError, LZMAError, ValueError
            raise data_error("damaged_entry", f"it cannot be unpacked: {damage_reason(error)}", name, HINT) from None

    def _at(self, offset: int, count: int) -> bytes:
        parts = []
        while count > 0 and (part := os.pread(self._file.fileno(), count, offset)):
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
