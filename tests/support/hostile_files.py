"""Bytes that are broken or mean harm: how each is made, which problem it must end in, and what the reason must name."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard
from PIL import Image

ACCEPTED = "accepted"
"""In place of a problem's code: the dataset is ready, and a finding or an unreadable entry names what is wrong."""


@dataclass(frozen=True, slots=True)
class Case:
    """One hostile upload."""

    name: str
    file: str
    """What the upload is called."""
    make: Callable[[], bytes]
    code: str
    """Of the first problem, or `accepted`."""
    names: str = ""
    """Stands in the reason: the entry, row, line, column or array."""
    kind: str | None = None
    target: str | None = None


def png(mode: str = "L", size: tuple[int, int] = (4, 4), colour: Any = 0, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, kind, **options)
    return buffer.getvalue()


def good(count: int = 30) -> dict[str, bytes]:
    """Images of two classes, enough that a few bad ones are a warning."""
    return {f"{'ab'[i % 2]}/{i:02d}.png": png(colour=i) for i in range(count)}


def zipped(files: dict[str, bytes] | list[tuple[Any, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    import warnings

    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as bundle:
        warnings.simplefilter("ignore")  # names that stand twice are meant to
        for name, data in files.items() if isinstance(files, dict) else files:
            bundle.writestr(name, data)
    return buffer.getvalue()


def tarred(files: Mapping[str, bytes | tarfile.TarInfo], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as bundle:
        for name, data in files.items():
            if isinstance(data, tarfile.TarInfo):
                bundle.addfile(data)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                bundle.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "/etc/passwd", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


def zip_with(name: str, data: bytes = b"x", mode: int = 0, files: dict[str, bytes] | None = None) -> bytes:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    info.external_attr = mode << 16
    return zipped([*(files or good()).items(), (info, data)])


def patched(raw: bytes, at: int, new: bytes) -> bytes:
    return raw[:at] + new + raw[at + len(new) :]


def encrypted() -> bytes:
    raw = bytearray(zipped(good(3)))
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    return bytes(raw)


def encrypted_in_the_entry_only() -> bytes:
    raw = bytearray(zipped({"a/0.png": png()}, zipfile.ZIP_STORED))
    raw[6] |= 1
    return bytes(raw)


def overlapping() -> bytes:
    raw = zipped({"a/1.png": png() * 20, "b/2.png": png() * 20})
    return patched(raw, raw.rindex(b"PK\x01\x02") + 42, bytes(4))


def of_another_name() -> bytes:
    raw = zipped({f"a/{i}.png": png() for i in range(2)}, zipfile.ZIP_STORED)
    return raw.replace(b"a/1.png", b"a/9.png", 1)


def wrong_checksum(at: str = "b/03.png", count: int = 4) -> bytes:
    raw = zipped(good(count), zipfile.ZIP_STORED)
    place = raw.index(at.encode()) + len(at) + 30
    return patched(raw, place, bytes([raw[place] ^ 0xFF]))


def lying_size() -> bytes:
    """The directory says 10 bytes, the data unpack to a million."""
    raw = zipped({"a/0.png": bytes(10**6), "b/0.png": png()})
    directory = raw.index(b"PK\x01\x02")
    return patched(raw, directory + 24, struct.pack("<L", 10))


def announced_size() -> bytes:
    """The directory says 3 GiB for a few bytes."""
    raw = zipped({"a/0.png": png(), "b/0.png": png()})
    return patched(raw, raw.index(b"PK\x01\x02") + 24, struct.pack("<L", 3 << 30))


def unknown_method() -> bytes:
    raw = zipped({"a/0.png": png(), "b/0.png": png()})
    raw = patched(raw, 8, struct.pack("<H", 97))
    return patched(raw, raw.index(b"PK\x01\x02") + 10, struct.pack("<H", 97))


def far_offset() -> bytes:
    raw = zipped({"a/0.png": png(), "b/0.png": png()})
    return patched(raw, raw.rindex(b"PK\x01\x02") + 42, struct.pack("<L", len(raw) - 30))


def nested_zip() -> bytes:
    inner = zipped({"zeros.bin": bytes(5 << 20)})
    return zipped({f"{i}.zip": inner for i in range(3)})


def bomb_png() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in a few kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))

    header = struct.pack(">LLBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")


def text_bomb_png() -> bytes:
    """A compressed comment that unpacks to 64 MiB."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))

    raw = png()
    comment = chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(64 << 20)))
    return raw[:33] + comment + raw[33:]


def among(bad: bytes, name: str = "a/bad.png", count: int = 30) -> Callable[[], bytes]:
    """A bad image among many good ones."""
    return lambda: zipped({**good(count), name: bad})


def array_bytes(array: Any, pickled: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=pickled)
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy_header(text: str, body: bytes = b"") -> bytes:
    raw = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw + body


def idx(shape: tuple[int, ...], body: bytes, magic: int = 8) -> bytes:
    return bytes([0, 0, magic, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + body


def mnist(**changes: bytes) -> bytes:
    files = {
        "train-images-idx3-ubyte": idx((4, 2, 2), bytes(16)),
        "train-labels-idx1-ubyte": idx((4,), bytes([0, 1, 0, 1])),
    }
    for name, data in changes.items():
        files[{"images": "train-images-idx3-ubyte", "labels": "train-labels-idx1-ubyte"}[name]] = data
    return zipped(files)


def parquet(columns: dict[str, Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def csv(*lines: str, encoding: str = "utf-8") -> Callable[[], bytes]:
    return lambda: ("\n".join(lines) + "\n").encode(encoding)


def rows(bad: str, count: int = 30) -> Callable[[], bytes]:
    """A table with one bad line, the third."""
    return csv("x,y", "1,2", bad, *(f"{i},{i}" for i in range(count)))


def lines_of_json(*values: Any) -> Callable[[], bytes]:
    return lambda: "\n".join(v if isinstance(v, str) else json.dumps(v) for v in values).encode()


def zip64() -> bytes:
    """Sound: sizes in the 64-bit extra field."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, data in good().items():
            with bundle.open(name, "w", force_zip64=True) as file:
                file.write(data)
        bundle.writestr("a/bad.png", b"no image")
    return buffer.getvalue()


def pax_bomb() -> bytes:
    """A header record of 300 MiB, which tar readers hold in memory."""
    record = tarfile.TarInfo("PaxHeaders/a")
    record.type, record.size = tarfile.XHDTYPE, 300 << 20
    return gzip.compress(record.tobuf() + bytes(300 << 20) + bytes(1024), 9)


def compressed(kind: str, raw: bytes) -> bytes:
    packers: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress,
        "xz": lzma.compress,
        "zst": zstandard.ZstdCompressor().compress,
    }
    return packers[kind](raw)
