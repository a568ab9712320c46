"""The API in process, on both databases, with nobody listening to its bell."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.support.api import Served
from tests.support.query_plans import PlanWatcher


@pytest.fixture
def settings(migrated_url: str, tmp_path: Path) -> Settings:
    return Settings(
        database_url=migrated_url,
        broker_url=f"redis+socket://{tmp_path}/nobody.sock",
        storage_url=str(tmp_path / "storage"),
        home=tmp_path,
        scratch=tmp_path / "scratch",
        secret_keys=(b64encode(bytes(32)).decode(),),
        max_upload_bytes=1 << 20,
        max_body_bytes=1 << 20,
        predict_seconds=1,
        webhook_allow=("127.0.0.1",),
        max_wrong_keys_per_minute=0,  # tests of refused keys send more of them
    )


@pytest.fixture
def service(settings: Settings) -> Iterator[Served]:
    app = create_app(settings)
    served = Served(app, TestClient(app), app.state.context)
    with TestClient(app):
        served.client = served.client_for("default")
        yield served
    app.state.context.engine.dispose()


@pytest.fixture(scope="session")
def plan_watcher() -> PlanWatcher:
    watcher = PlanWatcher()
    watcher.install()
    return watcher


@pytest.fixture(autouse=True)
def no_whole_tables(plan_watcher: PlanWatcher) -> Iterator[None]:
    """Fail a test that makes the service run a statement that reads a whole table, however many rows there are."""
    yield
    found, plan_watcher.found = plan_watcher.found, []
    assert not found, "\n\n".join(found)
