"""What a browser may do with an answer, and by which names the service may be called."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from service.app import api_router, create_app
from service.request_sessions import SessionRoute
from service.settings import Settings
from tests.support.api import Served, assert_problem

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
            assert headers["cache-control"] == "no-store"


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
def test_only_tls_is_made_to_stay(service: Served) -> None:
    client = TestClient(service.app, base_url="https://testserver")
    assert client.get("/healthz").headers["strict-transport-security"] == "max-age=31536000"


@SQLITE
def test_the_script_of_the_documentation_is_allowed_by_its_hash(service: Served) -> None:
    answer = service.client.get("/docs")
    scripts = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert f"'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert "/openapi.json" in scripts[0]


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
