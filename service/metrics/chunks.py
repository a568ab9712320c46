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

COLUMNS = (("series", "<u2"), ("step", "<i8"), ("epoch", "<i4"), ("value", "<f8"), ("at", "<f8"))


@dataclass(frozen=True, slots=True)
class Row:
    """One point as the training process measured it."""

    split: str
    name: str
    step: int
    epoch: int
    value: float
    at: float


def encode(rows: Sequence[Row]) -> bytes:
    """Rows to a body, in their order."""
    series: dict[tuple[str, str], int] = {}
    for row in rows:
        series.setdefault((row.split, row.name), len(series))
    columns = {
        "series": [series[row.split, row.name] for row in rows],
        "step": [row.step for row in rows],
        "epoch": [row.epoch for row in rows],
        "value": [row.value for row in rows],
        "at": [row.at for row in rows],
    }
    header = json.dumps({"n": len(rows), "series": [list(key) for key in series]}).encode()
    arrays = [np.asarray(columns[name], kind).tobytes() for name, kind in COLUMNS]
    return struct.pack("<I", len(header)) + header + b"".join(arrays)


def decode(body: bytes) -> list[Row]:
    """A body to its rows, in their order."""
    (length,) = struct.unpack_from("<I", body)
    header = json.loads(body[4 : 4 + length])
    n, series, offset = header["n"], header["series"], 4 + length
    columns = {}
    for name, kind in COLUMNS:
        columns[name] = np.frombuffer(body, kind, count=n, offset=offset)
        offset += columns[name].nbytes
    return [
        Row(series[index][0], series[index][1], step, epoch, value, at)
        for index, step, epoch, value, at in zip(*(columns[name].tolist() for name, _ in COLUMNS), strict=True)
    ]
