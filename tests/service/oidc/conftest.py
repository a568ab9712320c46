"""A service with sign-in, and a provider process that it trusts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.support.api import Served
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, RunningProvider, running_provider

GROUPS = '{"ml-team": {"vision": "developer", "nowhere": "admin"}, "leads": {"vision": "admin", "speech": "viewer"}, '
GROUPS += '"platform": "operator"}'


@pytest.fixture(scope="session")
def provider() -> Iterator[RunningProvider]:
    with running_provider() as running:
        yield running


@pytest.fixture
def settings(migrated_url: str, tmp_path: Path, provider: RunningProvider) -> Settings:
    return replace(
        Settings.from_env(
            {"TRAINKIT_HOME": str(tmp_path), "TRAINKIT_BROKER_URL": f"redis+socket://{tmp_path}/no.sock"}
        ),
        database_url=migrated_url,
        oidc_issuer=provider.url,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret=CLIENT_SECRET,
        oidc_audience="trainkit-api",
        oidc_roles=GROUPS,
    )


@pytest.fixture
def service(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The service, with the projects vision and speech; who asks is looked up at every request."""
    monkeypatch.setattr("service.auth.KEEP_SECONDS", 0.0)
    app = create_app(settings)
    served = Served(app, TestClient(app), app.state.context)
    with TestClient(app):
        served.client = served.client_for("vision")
        served.key("speech", "viewer")
        yield served
    app.state.context.engine.dispose()
