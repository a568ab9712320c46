"""The spool: what is appended is read once, in order; torn tails wait, damage is loud."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from worker.spool import SpoolError, SpoolReader, SpoolWriter


def test_events_come_back_in_order_and_once(tmp_path: Path) -> None:
    writer, reader = SpoolWriter(tmp_path / "spool"), SpoolReader(tmp_path / "spool")
    events = [{"type": "metrics", "step": step, "note": "line\nbreak\r"} for step in range(5)]
    for event in events[:3]:
        writer.write(event)
    assert reader.read() == events[:3]
    assert reader.read() == []
    for event in events[3:]:
        writer.write(event)
    writer.close()
    assert reader.read() == events[3:]


def test_not_a_number_and_infinity_survive(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "spool")
    writer.write({"type": "metrics", "rows": [["train", "loss", math.nan], ["val", "loss", -math.inf]]})
    rows = SpoolReader(tmp_path / "spool").read()[0]["rows"]
    assert math.isnan(rows[0][2])
    assert rows[1][2] == -math.inf


def test_a_missing_file_is_empty(tmp_path: Path) -> None:
    assert SpoolReader(tmp_path / "spool").read() == []


def test_a_torn_last_line_waits_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    writer = SpoolWriter(path)
    writer.write({"n": 1})
    writer.write({"n": 2})
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        reader = SpoolReader(path)
        early = reader.read()
        path.write_bytes(whole)
        assert early + reader.read() == [{"n": 1}, {"n": 2}]


def test_reading_resumes_at_an_offset(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "spool")
    writer.write({"n": 1})
    reader = SpoolReader(tmp_path / "spool")
    reader.read()
    writer.write({"n": 2})
    assert SpoolReader(tmp_path / "spool", reader.offset).read() == [{"n": 2}]


def test_a_line_longer_than_the_limit_is_read_whole(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "spool")
    for n in range(3):
        writer.write({"n": n, "text": "x" * 1000})
    reader = SpoolReader(tmp_path / "spool")
    seen = []
    while batch := reader.read(limit_bytes=100):
        seen += [event["n"] for event in batch]
    assert seen == [0, 1, 2]


def test_damage_in_a_complete_line_is_an_error_not_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    writer = SpoolWriter(path)
    writer.write({"n": 1})
    writer.write({"n": 2})
    damaged = bytearray(path.read_bytes())
    damaged[12] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(SpoolError, match="damaged"):
        SpoolReader(path).read()
