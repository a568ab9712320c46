"""Reading of R's data files (.rda) without R: as much of its XDR serialisation as data frames need.

Source: R Internals, section 1.8 "Serialization Formats".
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MISSING_INTEGER = -(2**31)
NULL, REFERENCE = 254, 255
SYMBOL, PAIRS, TEXT, LOGICALS, INTEGERS, REALS, TEXTS, LIST = 1, 2, 9, 10, 13, 14, 16, 19


def read_data_frame(file: Path) -> dict[str, NDArray[Any]]:
    """Return column -> float64 values, or texts for a factor, of the first data frame of an .rda file.

    Missing values are NaN and ''. Raises ValueError for what is no data frame, or serialised in another way.
    """
    raw = file.read_bytes()
    for begin, decompress in ((b"\x1f\x8b", gzip.decompress), (b"BZh", bz2.decompress), (b"\xfd7zXZ", lzma.decompress)):
        if raw.startswith(begin):
            raw = decompress(raw)
    (columns, attributes), *_ = _Reader(raw).item().values()
    if not isinstance(columns, list) or "names" not in attributes:
        raise ValueError(f"{file.name} holds no data frame")
    return {name: _column(*column) for name, column in zip(attributes["names"][0], columns, strict=True)}


def _column(values: Any, attributes: dict[str, Any]) -> NDArray[Any]:
    if "levels" in attributes:
        levels = np.array(["", *attributes["levels"][0]])
        return levels[np.where(values == MISSING_INTEGER, 0, values)]
    if isinstance(values, list):
        return np.array(["" if value is None else value for value in values])
    numbers = values.astype(np.float64)
    return np.where(values == MISSING_INTEGER, np.nan, numbers) if values.dtype.kind == "i" else numbers


class _Reader:
    """Position in a serialised stream; vectors come as (values, attributes)."""

    def __init__(self, raw: bytes) -> None:
        if raw[:7] not in (b"RDX2\nX\n", b"RDX3\nX\n"):
            raise ValueError(f"the file begins with {raw[:7]!r}: it is not R's binary format RDX2 or RDX3")
        self._raw, self._at = raw, 7
        self._symbols: list[Any] = []
        version = self._integer()
        self._at += 8  # the versions of R that wrote the file and that can read it
        if version == 3:
            self._at += self._integer()  # the native encoding's name

    def item(self) -> Any:
        """Return the next item."""
        flags = self._integer()
        kind, has_attributes, has_tag = flags & 255, bool(flags & 512), bool(flags & 1024)
        if kind == NULL:
            return None
        if kind == REFERENCE:
            return self._symbols[(flags >> 8 or self._integer()) - 1]
        if kind == SYMBOL:
            self._symbols.append(self.item())
            return self._symbols[-1]
        if kind == TEXT:
            length = self._integer()
            return None if length == -1 else self._bytes(length).decode("latin-1")
        if kind == PAIRS:
            if has_attributes:
                self.item()
            tag = self.item() if has_tag else None
            return {tag: self.item(), **(self.item() or {})}
        if kind in (LOGICALS, INTEGERS):
            values: Any = self._numbers(">i4")
        elif kind == REALS:
            values = self._numbers(">f8")
        elif kind in (TEXTS, LIST):
            values = [self.item() for _ in range(self._integer())]
        else:
            raise ValueError(f"items of type {kind} are not read")
        return values, (self.item() if has_attributes else {})

    def _integer(self) -> int:
        return int(struct.unpack(">i", self._bytes(4))[0])

    def _bytes(self, count: int) -> bytes:
        self._at += count
        return self._raw[self._at - count : self._at]

    def _numbers(self, code: str) -> NDArray[Any]:
        kind = np.dtype(code)
        return np.frombuffer(self._bytes(self._integer() * kind.itemsize), kind)
