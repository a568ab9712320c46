"""Hostile and broken uploads are refused or reported by name; nothing is written elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.hostile_cases import CASES
from tests.support.hostile_files import ACCEPTED, Case
from trainkit.data import DataError, prepare


def test_hostile_files_are_many() -> None:
    assert len(CASES) >= 100
    assert len(dict(CASES)) == len(CASES)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", [case for _, case in CASES], ids=[name for name, _ in CASES])
def test_hostile_upload_is_refused(case: Case, tmp_path: Path) -> None:
    place = tmp_path / "in" / "here"
    place.mkdir(parents=True)
    upload = place / f"upload{''.join(Path(case.file).suffixes)}"
    upload.write_bytes(case.make())
    try:
        _, report = prepare(upload, place / "prepared", kind=case.kind, target=case.target)
    except DataError as error:
        problem = error.problems[0]
        assert problem.code == case.code, problem
        assert case.names in f"{problem.where}: {problem.message}"
        json.dumps(problem.as_dict()).encode()
        left = {upload}
    else:
        assert case.code == ACCEPTED, f"accepted, and should not have been: {report['findings']}"
        messages = json.dumps([report["findings"], report["unreadable"]], ensure_ascii=False)
        assert report["findings"] or not case.names
        assert case.names in messages
        messages.encode()  # no half characters, which no database takes
        assert "\\u0000" not in json.dumps(report)
        left = {upload, place / "prepared"}
    assert set(place.iterdir()) == left
    assert list(tmp_path.iterdir()) == [tmp_path / "in"]
    assert list((tmp_path / "in").iterdir()) == [place]
