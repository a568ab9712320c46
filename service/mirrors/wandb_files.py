"""The `.wandb` file of an offline run of Weights & Biases, as `wandb sync` reads it.

A file is a log of LevelDB's form (https://github.com/google/leveldb/blob/main/doc/log_format.md) behind a header: blocks
of 32 KiB with chunks of (CRC-32 of type and data, length, type, data). Each entry is a protobuf `Record` of
wandb_internal.proto; its field numbers are below. Nothing of it needs the wandb library.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.protobuf_wire import bytes_field, number_field, text_field, texts_field
from trainkit.version import __version__

FILE_HEADER = b":W&B" + struct.pack("<HB", 0xBEE1, 0)
BLOCK, CHUNK_HEADER = 32 * 1024, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
OLDEST_READER = "0.70.0"
HISTORY, SUMMARY, CONFIG, RUN, EXIT, HEADER = 2, 3, 5, 17, 18, 21
"""Fields of `Record`; its number is field 1."""


@dataclass(frozen=True, slots=True)
class RunDescription:
    """What a run is called, and what belongs to it."""

    id: str
    project: str
    name: str
    group: str | None
    notes: str | None
    tags: Sequence[str]
    config: Mapping[str, Any]
    started_at: float
    """Unix seconds."""

    def records(self) -> list[bytes]:
        """Return what describes the run; written again, it updates it. (A config in a second `RunRecord` is not read.)"""
        update = (
            bytes_field(1, text_field(1, key) + text_field(16, _json(value))) for key, value in self.config.items()
        )
        return [self._run_record(), bytes_field(CONFIG, b"".join(update))]

    def _run_record(self) -> bytes:
        seconds = int(self.started_at)
        started = number_field(1, seconds) + number_field(2, int((self.started_at - seconds) * 1e9))
        return bytes_field(
            RUN,
            text_field(1, self.id)
            + text_field(3, self.project)
            + text_field(6, self.group)
            + text_field(8, self.name)
            + text_field(9, self.notes)
            + texts_field(10, self.tags)
            + bytes_field(17, started),
        )


def header_record() -> bytes:
    """Return the first record of a file."""
    version = text_field(1, f"trainkit/{__version__}") + text_field(2, OLDEST_READER)
    return bytes_field(HEADER, bytes_field(1, version))


def history_record(step: int, values: Mapping[str, float]) -> bytes:
    """Return the row of a step."""
    items = _items({**values, "_step": step})
    return bytes_field(HISTORY, items + bytes_field(2, number_field(1, step)))


def summary_record(values: Mapping[str, float]) -> bytes:
    """Return new last values; others stay."""
    return bytes_field(SUMMARY, _items(values))


def exit_record(code: int, seconds: int) -> bytes:
    """Return the end of a run that took so long."""
    return bytes_field(EXIT, number_field(1, code) + number_field(2, seconds))


def _items(values: Mapping[str, float]) -> bytes:
    # the name as `nested_key`, the way W&B's own client writes it: dots in it do not nest
    return b"".join(bytes_field(1, text_field(2, key) + text_field(16, _json(value))) for key, value in values.items())


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def entries(records: Iterable[bytes], number: int, offset: int) -> tuple[bytes, int]:
    """Return what to append to a file of `offset` bytes with `number` records, and how many it has then."""
    out = bytearray(b"" if offset else FILE_HEADER)
    for record in records:
        number += 1
        _append_chunks(out, offset, number_field(1, number) + record)
    return bytes(out), number


def _append_chunks(out: bytearray, offset: int, entry: bytes) -> None:
    """Append an entry in as many chunks as it has blocks; the rest of a block without room for a header is zero."""
    at, is_first = 0, True
    while is_first or at < len(entry):
        room = BLOCK - (offset + len(out)) % BLOCK
        if room < CHUNK_HEADER:
            out += bytes(room)
            room = BLOCK
        data = entry[at : at + room - CHUNK_HEADER]
        at += len(data)
        is_last = at == len(entry)
        kind = (FULL if is_last else FIRST) if is_first else (LAST if is_last else MIDDLE)
        out += struct.pack("<IHB", zlib.crc32(data, zlib.crc32(bytes([kind]))), len(data), kind) + data
        is_first = False
