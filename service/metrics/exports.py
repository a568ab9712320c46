"""The whole log as a file: CSV, Parquet, TensorBoard events. Read in pieces, so that any log fits into little memory."""

from __future__ import annotations

import csv
import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import google_crc32c
import numpy as np
from sqlalchemy.orm import Session, sessionmaker

from service.database import reading
from service.metrics.service import Slice, scan
from service.metrics.wire import times
from service.protobuf_wire import sized, varint
from trainkit.spec.text import csv_text

COLUMNS = ("seq", "attempt", "split", "name", "step", "epoch", "value", "at", "superseded")
CHUNKS_A_PIECE = 8
FILE_VERSION = b"brain.Event:2"


@dataclass(frozen=True, slots=True)
class Export:
    """What is exported: rows up to seq `until` of these names (None: all), marked as they were at one moment."""

    job_id: str
    until: int
    names: frozenset[str] | None
    ranges: Sequence[tuple[int, int]]
    """Of rows that had been run again by then."""
    begun: float
    """Unix seconds at which the job was made."""


def pieces(sessions: sessionmaker[Session], export: Export) -> Iterator[Slice]:
    """The log in slices. A session for a few of them: none is held while a client reads."""
    after = 0
    while after < export.until:
        with reading(sessions) as session:
            slices = scan(session, export.job_id, after, export.names, CHUNKS_A_PIECE, export.ranges)
            found = list(islice(slices, CHUNKS_A_PIECE))
        if not found:
            return
        after = found[-1].last_seq
        for piece in found:
            yield piece.until(export.until)


def as_csv(sessions: sessionmaker[Session], export: Export) -> Iterator[str]:
    """Lines with a header. A value is written as Python's `repr`: every bit comes back, `nan` and `inf` too.

    Text that a spreadsheet would run as a formula has an apostrophe before it.
    """
    yield ",".join(COLUMNS) + "\r\n"
    for piece in pieces(sessions, export):
        columns, places = piece.columns, piece.places
        split, name = (map(csv_text, texts) for texts in _names(piece))
        buffer = io.StringIO()
        csv.writer(buffer).writerows(
            zip(
                piece.seq[places].tolist(),
                [piece.attempt] * len(places),
                split,
                name,
                columns.step[places].tolist(),
                columns.epoch[places].tolist(),
                map(repr, columns.value[places].tolist()),
                times(columns.at[places]),
                piece.superseded[places].tolist(),
                strict=True,
            )
        )
        yield buffer.getvalue()


def as_parquet(sessions: sessionmaker[Session], export: Export) -> Iterator[bytes]:
    """A row group for some chunks; `at` to the microsecond in UTC, `split` and `name` as dictionaries."""
    # pyarrow takes 100 MB: an API process that never writes Parquet never loads it
    import pyarrow as pa
    from pyarrow import parquet

    text = pa.dictionary(pa.int32(), pa.string())
    kinds = (
        pa.int64(),
        pa.int32(),
        text,
        text,
        pa.int64(),
        pa.int64(),
        pa.float64(),
        pa.timestamp("us", "UTC"),
        pa.bool_(),
    )
    schema = pa.schema(list(zip(COLUMNS, kinds, strict=True)))
    sink = io.BytesIO()
    with parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        for group in _grouped(pieces(sessions, export), CHUNKS_A_PIECE):
            tables = [pa.table(_arrays(piece), schema=schema) for piece in group]
            writer.write_table(pa.concat_tables(tables, promote_options="permissive").unify_dictionaries())
            yield _drained(sink)
    yield _drained(sink)


def _arrays(piece: Slice) -> dict[str, Any]:
    columns, places = piece.columns, piece.places
    split, name = _names(piece)
    return {
        "seq": piece.seq[places],
        "attempt": np.full(len(places), piece.attempt, np.int32),
        "split": split,
        "name": name,
        "step": columns.step[places],
        "epoch": columns.epoch[places],
        "value": columns.value[places],
        "at": np.rint(columns.at[places] * 1e6).astype("datetime64[us]"),
        "superseded": piece.superseded[places],
    }


def _names(piece: Slice) -> tuple[list[str], list[str]]:
    """Split and name of each row."""
    series = [piece.columns.series[index] for index in piece.columns.index[piece.places].tolist()]
    return [split for split, _ in series], [name for _, name in series]


def _grouped(found: Iterator[Slice], size: int) -> Iterator[list[Slice]]:
    while group := list(islice(found, size)):
        yield group


def _drained(sink: io.BytesIO) -> bytes:
    body = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return body


def as_events(sessions: sessionmaker[Session], export: Export) -> Iterator[bytes]:
    """TensorBoard's event file of the rows that count: tags `val/accuracy`, float32 as its scalars are.

    A file is TFRecords (length, its CRC, body, its CRC) of `Event` messages: wall_time = 1, step = 2, file_version = 3,
    summary = 5 of values with tag = 1 and simple_value = 2 (tensorflow/core/util/event.proto, summary.proto).
    """
    yield first_event(export.begun)
    for piece in pieces(sessions, export):
        columns = piece.columns
        places = piece.places[~piece.superseded[piece.places]]
        tags = [b"\x0a" + sized(f"{split}/{name}".encode()) + b"\x15" for split, name in columns.series]
        with np.errstate(over="ignore"):
            values = columns.value[places].astype("<f4")
        rows = zip(
            columns.at[places].tolist(),
            columns.step[places].tolist(),
            columns.index[places].tolist(),
            values,
            strict=True,
        )
        yield b"".join(
            _record(
                b"\x09"
                + struct.pack("<d", at)
                + b"\x10"
                + varint(step)
                + b"\x2a"
                + sized(b"\x0a" + sized(tags[index] + value.tobytes()))
            )
            for at, step, index, value in rows
        )


def first_event(begun: float) -> bytes:
    """Return the record that an event file begins with."""
    return _record(b"\x09" + struct.pack("<d", begun) + b"\x1a" + sized(FILE_VERSION))


def scalar_event(at: float, step: int, tag: str, value: float) -> bytes:
    """Return the record of one scalar."""
    with np.errstate(over="ignore"):
        scalar = sized(b"\x0a" + sized(tag.encode()) + b"\x15" + np.float32(value).tobytes())
    return _record(b"\x09" + struct.pack("<d", at) + b"\x10" + varint(step) + b"\x2a" + sized(b"\x0a" + scalar))


def restart_event(at: float, step: int) -> bytes:
    """Return the record at which readers drop what they have read of this step and later ones (`SessionLog.START`)."""
    return _record(b"\x09" + struct.pack("<d", at) + b"\x10" + varint(step) + b"\x3a" + sized(b"\x08\x01"))


def _record(body: bytes) -> bytes:
    length = struct.pack("<Q", len(body))
    return length + _crc(length) + body + _crc(body)


def _crc(body: bytes) -> bytes:
    """CRC-32C, rotated and shifted as TFRecord wants it."""
    crc = google_crc32c.value(body)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
