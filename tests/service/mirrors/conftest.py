"""One MLflow server for all tests of mirrors: it takes a while to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.mlflow_server import MlflowServer, mlflow_server


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server
