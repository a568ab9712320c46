"""One API process for all attacks that leave it as it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.attacked_api import AttackedApi

Start = Callable[..., AttackedApi]


@pytest.fixture(scope="session")
def start_api(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[Start]:
    """A function that starts an API process; keyword arguments are settings."""
    started: list[AttackedApi] = []

    def start(descriptors: int | None = None, **environment: str) -> AttackedApi:
        folder = tmp_path_factory.mktemp("attacked")
        shutil.copyfile(migrated_sqlite, folder / "trainkit.db")
        started.append(AttackedApi(folder, folder / "trainkit.db", descriptors, **environment))
        return started[-1]

    yield start
    for api in started:
        api.stop()


@pytest.fixture(scope="session")
def api(start_api: Start) -> AttackedApi:
    return start_api()


@pytest.fixture(scope="session")
def key(api: AttackedApi) -> str:
    return api.key()
