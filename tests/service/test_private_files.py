"""Database, storage and scratch are for the service's user: new files by the umask, older ones when a process starts."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.migrate import upgrade
from service.private_files import keep_files_private
from service.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    before = os.umask(0o022)
    yield Settings.from_env({"TRAINKIT_HOME": str(tmp_path)})
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_of_an_earlier_version_are_closed(settings: Settings, tmp_path: Path) -> None:
    for name in ("trainkit.db", "trainkit.db-wal", "trainkit.db-shm"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o644)
    for name in ("storage", "scratch"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o755)
    keep_files_private(settings)
    assert {mode(path) for path in tmp_path.glob("trainkit.db*")} == {0o600}
    assert mode(tmp_path / "storage") == mode(tmp_path / "scratch") == 0o750, "a group is the operator's choice"


def test_new_files_are_private(settings: Settings, tmp_path: Path) -> None:
    keep_files_private(settings)
    upgrade(settings.database_url)
    assert mode(tmp_path / "trainkit.db") == 0o600
    (tmp_path / "storage" / "a").mkdir(parents=True)
    assert mode(tmp_path / "storage" / "a") == 0o700


def test_what_is_not_there_is_no_error(settings: Settings) -> None:
    keep_files_private(replace(settings, database_url="postgresql+psycopg://user:secret@db/name"))
