"""One stack for each database serves most end-to-end tests; tests that break things have their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.support.api_steps import example_data
from tests.support.chromium import chromium
from tests.support.compose import ComposeStack
from tests.support.stack import Stack, running
from tests.support.up import Installation, installed

SHARED = ("stack", "installation", "fragile")
"""Fixtures of processes. The tests of one run in one process of pytest-xdist (`--dist loadgroup`), which starts it."""
APART = {
    "test_dashboard": "-browser",
    "test_dashboard_job": "-browser",
    "test_docs_page": "-browser",
    "test_generated_clients": "-clients",
}
"""Files whose tests take so long that they have a stack of their own, or they would end minutes after all others."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the tests of this folder: by their fixture of processes, else by file."""
    for item in items:
        if isinstance(item, pytest.Function) and item.path.parent == Path(__file__).parent:
            database = item.callspec.params.get("stack", "") if hasattr(item, "callspec") else ""
            apart = APART.get(item.path.stem, "")
            shared = [f"{fixture}{database}{apart}" for fixture in SHARED if fixture in item.fixturenames]
            item.add_marker(pytest.mark.xdist_group([*shared, item.path.stem][0]))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, or a skip where there is none."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """digits.zip, cancer.csv and the samples to predict."""
    return example_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service on SQLite, or on PostgreSQL as docker-compose.yml runs it; `pytest_generate_tests` chose which."""
    folder = tmp_path_factory.mktemp(f"stack-{request.param}")
    if request.param == "sqlite":
        chosen = Stack(folder, f"sqlite:///{folder}/trainkit.db")
    else:
        chosen = ComposeStack(folder, request.getfixturevalue("new_postgres_database")())
    with running(chosen) as started:
        yield started


@pytest.fixture(scope="session")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service on SQLite whose processes may be killed, as long as every test leaves them running."""
    folder = tmp_path_factory.mktemp("fragile")
    with running(Stack(folder, f"sqlite:///{folder}/trainkit.db")) as started:
        yield started


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """`trainkit up` in a folder as a reader's own looks."""
    with installed(tmp_path_factory.mktemp("installation")) as started:
        yield started
