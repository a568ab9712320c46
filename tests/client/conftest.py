"""One service of real processes for the tests of the client, and another one that may be killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api_steps import example_data
from tests.support.stack import Stack, running
from trainkit_client import Client


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the one service run in one process of pytest-xdist (`--dist loadgroup`), which starts it."""
    for item in items:
        ours = isinstance(item, pytest.Function) and item.path.is_relative_to(Path(__file__).parent)
        if ours and "service" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("client-service"))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """digits.zip, cancer.csv and the samples to predict."""
    return example_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service on SQLite whose processes stay alive."""
    folder = tmp_path_factory.mktemp("service")
    with running(Stack(folder, f"sqlite:///{folder}/trainkit.db")) as started:
        yield started


@pytest.fixture
def client(service: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of it, which remembers uploads in a folder of the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with Client(service.url, service.key) as connected:
        yield connected
