"""R's data files, written by hand after R Internals: a data frame of numbers, whole numbers, a factor and texts."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.diagnosis import packages
from benchmarks.diagnosis.r_data import read_data_frame

NULL = struct.pack(">i", 254)


def integers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}i", *values)


def text(value: str | None) -> bytes:
    return integers(9, -1) if value is None else integers(9, len(value)) + value.encode()


def symbol(name: str) -> bytes:
    return integers(1) + text(name)


def texts(*values: str | None) -> bytes:
    return integers(16, len(values)) + b"".join(map(text, values))


def pair(name: bytes, value: bytes, rest: bytes = NULL) -> bytes:
    return integers(2 | 1024) + name + value + rest


def factor(codes: list[int], levels: list[str], first: bool) -> bytes:
    """A factor; the symbol `levels` is written once, and referred to after that."""
    name = symbol("levels") if first else integers(255 | 2 << 8)
    return integers(13 | 512, len(codes), *codes) + pair(name, texts(*levels))


def data_frame() -> bytes:
    columns = [
        integers(14, 3) + struct.pack(">3d", 1.5, float("nan"), -2.0),
        integers(13, 3, 7, -(2**31), 9),
        factor([2, 1, -(2**31)], ["no", "yes"], first=True),
        factor([1, 1, 2], ["a", "b"], first=False),
        texts("x", None, "z"),
    ]
    names = pair(symbol("names"), texts("real", "whole", "answer", "letter", "note"))
    frame = integers(19 | 512, len(columns)) + b"".join(columns) + names
    return b"RDX2\nX\n" + integers(2, 0x030600, 0x020300) + pair(symbol("frame"), frame)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_data_frame_is_read(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    file = tmp_path / "frame.rda"
    file.write_bytes(compress(data_frame()))
    columns = read_data_frame(file)
    np.testing.assert_array_equal(columns["real"], [1.5, np.nan, -2.0])
    np.testing.assert_array_equal(columns["whole"], [7, np.nan, 9])
    assert columns["answer"].tolist() == ["yes", "no", ""]
    assert columns["letter"].tolist() == ["a", "a", "b"]
    assert columns["note"].tolist() == ["x", "", "z"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"RDA3\nA\n", "not R's binary format"),
        (b"RDX2\nX\n" + integers(2, 0, 0) + pair(symbol("x"), texts("a")), "holds no data frame"),
        (b"RDX2\nX\n" + integers(2, 0, 0) + pair(symbol("x"), integers(4)), "items of type 4 are not read"),
    ],
)
def test_another_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "other.rda"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_data_frame(file)


def test_a_fetched_file_of_another_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "FILES", tmp_path)
    (tmp_path / "glass.rda").write_bytes(data_frame())
    with pytest.raises(ValueError, match="another version of r-cran-mlbench"):
        packages.fetch("glass.rda")
