"""Hostile and broken uploads are refused or reported by name, within bounds; nothing is written elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.hostile_bombs import BOMBS
from tests.support.hostile_cases import CASES
from tests.support.hostile_files import ACCEPTED, Case
from tests.support.measured_reader import read_upload

GROWTH = 400 * 2**20
"""Bytes that no process may hold more than it had at its start; without limits the worst of these took 10 GB."""
CPU_SECONDS = 30
"""Generous: most take a hundredth of a second."""
ALL = [*CASES, *BOMBS]


def test_hostile_files_are_many() -> None:
    assert len(CASES) >= 100
    assert len(BOMBS) >= 80
    assert len(dict(ALL)) == len(ALL)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("case", [case for _, case in ALL], ids=[name for name, _ in ALL])
def test_hostile_upload_is_refused(case: Case, tmp_path: Path) -> None:
    place, folder = tmp_path / "in" / "here", tmp_path / "reader"
    place.mkdir(parents=True)
    folder.mkdir()
    upload = place / f"upload{''.join(Path(case.file).suffixes)}"
    upload.write_bytes(case.make())
    reading = read_upload(upload, folder, case.kind, case.target)
    left = {folder / "spool", folder / "log.txt"}
    if reading.state == "invalid":
        assert reading.error["code"] == case.code, reading.error
        assert case.names in reading.error["message"]
        json.dumps(reading.error).encode()
    else:
        assert reading.state == "ready", reading.state
        assert case.code == ACCEPTED, f"accepted, and should not have been: {reading.report['findings']}"
        messages = json.dumps([reading.report["findings"], reading.report["unreadable"]], ensure_ascii=False)
        assert reading.report["findings"] or not case.names
        assert case.names in messages
        messages.encode()  # no half characters, which no database takes
        assert "\\u0000" not in json.dumps(reading.report)
        left.add(folder / "prepared")
    assert reading.grown_bytes < GROWTH, f"{reading.grown_bytes >> 20} MiB"
    assert reading.cpu_seconds < CPU_SECONDS
    assert {path for path in folder.iterdir() if path.suffix != ".part"} == left
    assert list(place.iterdir()) == [upload]
    assert set(tmp_path.iterdir()) == {tmp_path / "in", folder}
