"""The dashboard's files: who may fetch them, what a browser may do with them, and where / leads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service import dashboard
from service.app import create_app
from service.settings import Settings
from tests.support.api import assert_problem


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "dist"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<title>trainkit</title>")
    (folder / "assets/index-1.js").write_text("1")
    monkeypatch.setattr(dashboard, "FOLDER", folder)
    return folder


def test_a_browser_needs_no_key_for_the_files_alone(settings: Settings, files: Path) -> None:
    app = create_app(settings)
    client = TestClient(app, follow_redirects=False)
    lead = client.get("/")
    assert (lead.status_code, lead.headers["Location"]) == (307, "/ui/")
    page = client.get("/ui/")
    assert "trainkit" in page.text
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert client.get("/ui/assets/index-1.js").status_code == 200
    for path in ("/ui/../service/app.py", "/ui/%2e%2e/app.py", "/ui/nothing.js"):
        assert client.get(path).status_code in (401, 404), path
    assert_problem(client.get("/v1/jobs"), 401, "key_missing")
    app.state.context.engine.dispose()


def test_below_a_path_of_a_proxy(settings: Settings, files: Path) -> None:
    app = create_app(replace(settings, root_path="/tools/trainkit"))
    client = TestClient(app, follow_redirects=False)
    assert client.get("/").headers["Location"] == "/tools/trainkit/ui/"
    app.state.context.engine.dispose()


def test_the_page_knows_a_sign_in_without_asking(settings: Settings, files: Path) -> None:
    for issuer in ("", "https://login.example"):
        client_of = {"oidc_issuer": issuer, "oidc_client_id": "dashboard"} if issuer else {}
        app = create_app(replace(settings, **client_of))
        page = TestClient(app).get("/ui/")
        assert (dashboard.SIGN_IN in page.text) == bool(issuer)
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]
        app.state.context.engine.dispose()


def test_without_built_files_all_else_works(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "FOLDER", tmp_path / "none")
    app = create_app(settings)
    client = TestClient(app, follow_redirects=False)
    assert_problem(client.get("/"), 404, "not_found")
    assert client.get("/healthz").status_code == 200
    app.state.context.engine.dispose()
