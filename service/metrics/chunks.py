"""A columnar body for many metric rows: small, exact (NaN and infinity survive), quick to read.

Layout: 4 bytes length of a JSON header, the header, then the columns, little endian. Version 2's header is
`{"v": 2, "n", "series": [[split, name], ...], "columns": [[name, kind, base], ...]}`. The whole numbers (index into
series, step, epoch, and the bits of `at`) are stored as what they exceed `base` by, in the narrowest kind that holds
them, or not at all (kind "") when all are equal; `value` is float32 where that loses no bit, else float64.
Version 1 (without "v") had fixed kinds: `FIXED`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FIXED = (("index", "<u2"), ("step", "<i8"), ("epoch", "<i4"), ("value", "<f8"), ("at", "<f8"))
UNSIGNED = ("<u1", "<u2", "<u4", "<u8")


class MetricRow(NamedTuple):
    """One point as the training process measured it."""

    split: str
    name: str
    step: int
    epoch: int
    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Columns:
    """A body's columns; `index` points into `series`, a list of (split, name); `at` is in Unix seconds."""

    series: list[tuple[str, str]]
    index: NDArray[np.integer[Any]]
    step: NDArray[np.int64]
    epoch: NDArray[np.int64]
    value: NDArray[np.float64]
    at: NDArray[np.float64]

    def row(self, place: int) -> MetricRow:
        """The row at that place."""
        return self.rows(np.asarray([place]))[0]

    def at_places(self, places: NDArray[np.intp]) -> Columns:
        """The columns at these places alone."""
        step, epoch, value, at = self.step[places], self.epoch[places], self.value[places], self.at[places]
        return Columns(self.series, self.index[places], step, epoch, value, at)

    def rows(self, places: NDArray[np.intp]) -> list[MetricRow]:
        """The rows at these places."""
        columns = (column[places].tolist() for column in (self.index, self.step, self.epoch, self.value, self.at))
        return [
            MetricRow(self.series[index][0], self.series[index][1], step, epoch, value, at)
            for index, step, epoch, value, at in zip(*columns, strict=True)
        ]


def columns_of(rows: Sequence[MetricRow]) -> Columns:
    """Rows to columns, in their order."""
    series: dict[tuple[str, str], int] = {}
    index = [series.setdefault((row.split, row.name), len(series)) for row in rows]
    return Columns(
        list(series),
        np.asarray(index, np.int64),
        np.asarray([row.step for row in rows], np.int64),
        np.asarray([row.epoch for row in rows], np.int64),
        np.asarray([row.value for row in rows], np.float64),
        np.asarray([row.at for row in rows], np.float64),
    )


def joined(parts: Sequence[Columns]) -> Columns:
    """The rows of all parts, one part after the other."""
    series: dict[tuple[str, str], int] = {}
    indices = []
    for part in parts:
        places = [series.setdefault(one, len(series)) for one in part.series]
        indices.append(np.asarray(places, np.int64)[part.index])
    rest = ("step", "epoch", "value", "at")
    return Columns(
        list(series), np.concatenate(indices), *(np.concatenate([getattr(p, c) for p in parts]) for c in rest)
    )


def encode_columns(columns: Columns) -> bytes:
    """Columns to a body."""
    arrays: list[bytes] = []
    encodings: list[list[Any]] = []
    whole = {"index": columns.index, "step": columns.step, "epoch": columns.epoch, "at": columns.at.view(np.int64)}
    for name, numbers in whole.items():
        kind, base, body = _narrow(numbers)
        encodings.append([name, kind, base])
        arrays.append(body)
    kind, body = _floats(columns.value)
    encodings.append(["value", kind, 0])
    arrays.append(body)
    header = json.dumps({"v": 2, "n": len(columns.index), "series": columns.series, "columns": encodings}).encode()
    return struct.pack("<I", len(header)) + header + b"".join(arrays)


def _narrow(numbers: NDArray[np.integer[Any]]) -> tuple[str, int, bytes]:
    """(kind, base, body) of whole numbers; what they exceed the smallest by always fits into 64 bits."""
    if not len(numbers):
        return "", 0, b""
    base = int(numbers.min())
    spread = int(numbers.max()) - base
    if not spread:
        return "", base, b""
    kind = next(kind for kind in UNSIGNED if spread <= np.iinfo(kind).max)
    above = numbers.astype(np.int64).view(np.uint64) - np.uint64(base % 2**64)  # modulo 2^64, as the sum back is
    return kind, base, above.astype(kind).tobytes()


def _floats(values: NDArray[np.float64]) -> tuple[str, bytes]:
    """float32 where every bit comes back (most values are a float32 that became a Python number)."""
    with np.errstate(over="ignore", invalid="ignore"):
        small = values.astype("<f4")
        same = np.array_equal(small.astype(np.float64).view(np.uint64), values.view(np.uint64))
    return ("<f4", small.tobytes()) if same else ("<f8", values.astype("<f8").tobytes())


def decode_columns(body: bytes) -> Columns:
    """A body to its columns."""
    (length,) = struct.unpack_from("<I", body)
    header = json.loads(body[4 : 4 + length])
    count, offset = header["n"], 4 + length
    series = [(split, name) for split, name in header["series"]]
    found: dict[str, Any] = {}
    for name, kind, base in header.get("columns") or [(name, kind, None) for name, kind in FIXED]:
        if not kind:
            found[name] = np.full(count, base, np.int64)
            continue
        column = np.frombuffer(body, kind, count, offset)
        offset += column.nbytes
        if name == "value":
            column = column.astype(np.float64)
        elif base is not None:
            column = (column.astype(np.uint64) + np.uint64(base % 2**64)).view(np.int64)
        found[name] = column
    if header.get("v") == 2:
        found["at"] = found["at"].view(np.float64)
    return Columns(series, **found)
