"""One MLflow server for all tests of mirrors, as it takes a while to start; a service with a folder for files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.support.api import Served
from tests.support.mlflow_server import MlflowServer, mlflow_server


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where mirrors of files write."""
    return tmp_path / "mirrors"


@pytest.fixture
def served(settings: Settings, folder: Path) -> Iterator[Served]:
    """A service that writes files of jobs."""
    app = create_app(replace(settings, mirror_folder=folder))
    with TestClient(app):
        service = Served(app, TestClient(app), app.state.context)
        service.client = service.client_for("default")
        yield service
    app.state.context.engine.dispose()
