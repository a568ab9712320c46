"""One stack for each database serves most end-to-end tests; tests that break things start their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api_steps import example_data
from tests.support.stack import Stack, running


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """digits.zip, cancer.csv and the samples to predict."""
    return example_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start a service on the database that `pytest_generate_tests` chose."""
    folder = tmp_path_factory.mktemp(f"stack-{request.param}")
    if request.param == "sqlite":
        url = f"sqlite:///{folder}/trainkit.db"
    else:
        url = request.getfixturevalue("new_postgres_database")()
    with running(folder, url) as started:
        yield started
