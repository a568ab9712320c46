"""What a browser may do with an answer, and by which names the service may be called."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from service.api_docs.routes import SWAGGER_UI
from service.app import api_router, create_app
from service.request_sessions import SessionRoute
from service.settings import Settings
from tests.support.api import Served, assert_problem

NEEDS_BUILD = pytest.mark.skipif(not SWAGGER_UI.is_dir(), reason="make setup builds the files")
SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
KINDS = ["/healthz", "/v1/jobs", "/nowhere", "/v1/jobs/%00", "/openapi.json", "/v1/jobs?zzz=1", "/ui/x"]


@SQLITE
@pytest.mark.parametrize("path", KINDS)
def test_every_answer_says_what_a_browser_may_do(service: Served, path: str) -> None:
    for client in (service.client, TestClient(service.app)):
        headers = client.get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "strict-transport-security" not in headers
        assert "access-control-allow-origin" not in headers
        if not path.startswith("/ui"):
            assert headers["cache-control"] == ("no-cache" if "etag" in headers else "no-store")


@SQLITE
def test_a_defect_and_an_etag_have_them_too(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    job = service.submit()
    headers = service.client.get(f"/v1/jobs/{job}").headers
    assert headers["etag"]
    assert headers["cache-control"] == "no-cache"  # the route's own
    monkeypatch.setattr("service.jobs.routes.service.find", lambda *_: 1 / 0)
    answer = service.client.get(f"/v1/jobs/{job}")
    assert_problem(answer, 500, "internal")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["cache-control"] == "no-store"


@SQLITE
def test_what_a_browser_keeps_is_for_the_same_key_alone(service: Served) -> None:
    """It goes back without asking anew: what one key has read must not be shown to another, or to none."""
    for path in ("/v1/jobs", "/openapi.json", "/v1/catalog"):
        answer = service.client.get(path)
        assert answer.headers["ETag"]
        assert {"authorization", "cookie"} <= set(answer.headers["Vary"].lower().replace(" ", "").split(",")), path
    assert "authorization" not in service.client.get("/docs").headers["Vary"].lower()


@SQLITE
def test_only_tls_is_made_to_stay(service: Served) -> None:
    client = TestClient(service.app, base_url="https://testserver")
    assert client.get("/healthz").headers["strict-transport-security"] == "max-age=31536000"


@NEEDS_BUILD
@SQLITE
def test_the_documentation_runs_its_own_files_only(service: Served) -> None:
    bare = TestClient(service.app)
    page = bare.get("/docs")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    assert "://" not in policy
    assert "://" not in page.text
    assert re.findall(r"<script(?![^>]* src=)|<style|style=|\bon\w+=", page.text) == []
    for address in re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text):
        file = bare.get(f"/{address}")
        assert file.status_code == 200, address
        assert file.headers["x-content-type-options"] == "nosniff"
        again = bare.get(f"/{address}", headers={"If-None-Match": file.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        plain = bare.get(f"/{address}", headers={"Accept-Encoding": "identity"})
        assert (plain.content, "content-encoding" in plain.headers) == (file.content, False)


PUBLISHED = {
    "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
    "favicon-32x32.png": "3ed612f41e050ca5e7000cad6f1cbe7e7da39f65fca99c02e99e6591056e5837",
}
"""SHA-256 of the files of swagger-ui-dist 5.35.0, as its makers publish them."""


@NEEDS_BUILD
@SQLITE
def test_the_files_of_swagger_ui_are_those_of_its_makers(service: Served) -> None:
    """A script in the page of a key must be nobody else's. With a new release compare its files, then change the list."""
    bare = TestClient(service.app)
    for name, digest in PUBLISHED.items():
        assert hashlib.sha256(bare.get(f"/docs/{name}").content).hexdigest() == digest, name


@SQLITE
def test_the_document_is_public_by_setting(settings: Settings) -> None:
    for public, status in {False: 401, True: 200}.items():
        app = create_app(replace(settings, public_openapi=public))
        bare = TestClient(app)
        for method in ("GET", "HEAD"):
            assert bare.request(method, "/openapi.json").status_code == status
        assert bare.get("/openapi.json/").status_code == bare.get("/v1/jobs").status_code == 401
        app.state.context.engine.dispose()
    assert Settings.from_env({"TRAINKIT_PUBLIC_OPENAPI": "1"}).public_openapi
    with pytest.raises(ValueError, match="TRAINKIT_PUBLIC_OPENAPI is 'yes'"):
        Settings.from_env({"TRAINKIT_PUBLIC_OPENAPI": "yes"})


@SQLITE
def test_names_that_are_allowed(settings: Settings) -> None:
    app = create_app(replace(settings, allowed_hosts=("trainkit.example.com", ".internal", "[::1]")))
    client = TestClient(app)
    for host in ("trainkit.example.com", "TRAINKIT.example.com:8321", "a.internal", "b.a.internal:80", "[::1]:8321"):
        assert client.get("/v1/jobs", headers={"Host": host}).status_code == 401, host
    for host in ("example.com", "internal", "xinternal", "trainkit.example.com.evil.example", "localhost"):
        assert_problem(client.get("/v1/jobs", headers={"Host": host}), 421, "unknown_host")
        assert client.get("/healthz", headers={"Host": host}).status_code == 200
    app.state.context.engine.dispose()
    app = create_app(replace(settings, allowed_hosts=("*",)))
    assert TestClient(app).get("/nowhere", headers={"Host": "whoever.example"}).status_code == 401
    app.state.context.engine.dispose()


@pytest.mark.parametrize("name", ["http://a", "a:80", "a b", "", "*a", "a/b", "${HOSTS}"])
def test_a_name_that_no_host_can_be_is_refused_at_the_start(settings: Settings, name: str) -> None:
    """And not by a middleware, which is made at the first request: each would be a 500."""
    with pytest.raises(ValueError, match="TRAINKIT_ALLOWED_HOSTS"):
        create_app(replace(settings, allowed_hosts=(name,)))


def test_no_route_parses_json_on_the_event_loop() -> None:
    routers = [included.original_router for included in api_router().routes]
    routes = [route for router in routers for route in router.routes if getattr(route, "body_field", None) is not None]
    assert len(routes) > 10
    assert [route for route in routes if not isinstance(route, SessionRoute)] == []
