"""A columnar body for many metric rows: small, exact (NaN and infinity survive), quick to read.

Layout: 4 bytes length of a JSON header `{"n", "series": [[split, name], ...]}`, the header, then the columns
series (uint16), step (int64), epoch (int32), value and at (float64, Unix seconds): n entries each, little endian.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COLUMNS = (("index", "<u2"), ("step", "<i8"), ("epoch", "<i4"), ("value", "<f8"), ("at", "<f8"))


@dataclass(frozen=True, slots=True)
class Row:
    """One point as the training process measured it."""

    split: str
    name: str
    step: int
    epoch: int
    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Columns:
    """A body's columns; `index` points into `series`, a list of (split, name)."""

    series: list[tuple[str, str]]
    index: NDArray[np.uint16]
    step: NDArray[np.int64]
    epoch: NDArray[np.int32]
    value: NDArray[np.float64]
    at: NDArray[np.float64]

    def row(self, place: int) -> Row:
        """The row at that place."""
        return self.rows(np.asarray([place]))[0]

    def rows(self, places: NDArray[np.intp]) -> list[Row]:
        """The rows at these places."""
        columns = (column[places].tolist() for column in (self.index, self.step, self.epoch, self.value, self.at))
        return [
            Row(self.series[index][0], self.series[index][1], step, epoch, value, at)
            for index, step, epoch, value, at in zip(*columns, strict=True)
        ]


def encode(rows: Sequence[Row]) -> bytes:
    """Rows to a body, in their order."""
    series: dict[tuple[str, str], int] = {}
    for row in rows:
        series.setdefault((row.split, row.name), len(series))
    columns = {
        "index": [series[row.split, row.name] for row in rows],
        "step": [row.step for row in rows],
        "epoch": [row.epoch for row in rows],
        "value": [row.value for row in rows],
        "at": [row.at for row in rows],
    }
    header = json.dumps({"n": len(rows), "series": [list(key) for key in series]}).encode()
    arrays = [np.asarray(columns[name], kind).tobytes() for name, kind in COLUMNS]
    return struct.pack("<I", len(header)) + header + b"".join(arrays)


def decode_columns(body: bytes) -> Columns:
    """A body to its columns, without copying."""
    (length,) = struct.unpack_from("<I", body)
    header = json.loads(body[4 : 4 + length])
    offset = 4 + length
    columns = {}
    for name, kind in COLUMNS:
        columns[name] = np.frombuffer(body, kind, count=header["n"], offset=offset)
        offset += columns[name].nbytes
    return Columns([(split, name) for split, name in header["series"]], **columns)


def decode(body: bytes) -> list[Row]:
    """A body to its rows, in their order."""
    columns = decode_columns(body)
    return columns.rows(np.arange(len(columns.index)))
