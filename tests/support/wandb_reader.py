"""Read a `.wandb` file with the wandb library's own protobuf classes."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, CHUNK_HEADER = 32 * 1024, 7


def entries_of(body: bytes) -> list[bytes]:
    """The entries of a log of LevelDB's form, as its format describes it; every checksum is checked."""
    assert body[:7] == b":W&B\xe1\xbe\x00"
    found: list[bytes] = []
    at, is_open = 7, False
    while at < len(body):
        room = BLOCK - at % BLOCK
        if room < CHUNK_HEADER:
            assert not any(body[at : at + room])
            at += room
            continue
        checksum, length, kind = struct.unpack("<IHB", body[at : at + CHUNK_HEADER])
        assert CHUNK_HEADER + length <= room, "a chunk leaves its block"
        at += CHUNK_HEADER
        data = body[at : at + length]
        assert len(data) == length, "the last chunk is cut"
        assert zlib.crc32(bytes([kind]) + data) == checksum
        assert is_open == (kind in (3, 4))
        found[len(found) - is_open :] = [found[-1] + data if is_open else data]
        is_open = kind in (2, 3)
        at += length
    assert not is_open
    return found


def records_of(path: Path) -> list[Any]:
    """The records of a file; they are numbered one by one."""
    messages: Any = wandb_internal_pb2
    records = [messages.Record.FromString(entry) for entry in entries_of(path.read_bytes())]
    assert [record.num for record in records] == list(range(1, len(records) + 1))
    return records


def history_of(path: Path) -> list[dict[str, Any]]:
    """The rows of the history."""
    return [
        {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records_of(path)
        if record.WhichOneof("record_type") == "history"
    ]


def series(path: Path, key: str) -> list[tuple[int, float]]:
    """(step, value) of one metric."""
    return [(row["_step"], row[key]) for row in history_of(path) if key in row]
