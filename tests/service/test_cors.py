"""Pages of other origins: exactly those that are named may read answers, and none gets credentials."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.cors import METHODS, REQUEST_HEADERS, RESPONSE_HEADERS, checked_origin, headers_for
from service.openapi import operations
from service.settings import Settings
from tests.support.api import Served, assert_problem

pytestmark = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
APP, DEV = "https://app.example.com", "http://localhost:5173"
STRANGERS = [
    "https://evil.example",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com.evil.example",
    "https://evil.example?https://app.example.com",
    "https://APP.example.com",
    "https://app.example.com/",
    "https://app.example.com, https://evil.example",
    "https://xapp.example.com",
    "https://app.example.com\tx",
    "null",
    "*",
    "",
    "file://",
]


@pytest.fixture
def open_app(settings: Settings) -> Iterator[Served]:
    app = create_app(replace(settings, cors_origins=(APP, DEV)))
    service = Served(app, TestClient(app), app.state.context)
    service.client = service.client_for("default")
    yield service
    app.state.context.engine.dispose()


def preflight(client: TestClient, path: str, method: str, headers: str = "authorization", origin: str = APP) -> Any:
    sent = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return client.options(path, headers=sent)


def test_a_preflight_needs_no_key(open_app: Served) -> None:
    bare = TestClient(open_app.app)
    for path, method, operation in operations(open_app.app.openapi()):
        if method == "options":
            continue
        sent = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "header"]
        answer = preflight(bare, path, method.upper(), ",".join(["authorization", "content-type", *sent]))
        assert (answer.status_code, answer.content) == (204, b""), f"{method} {path}: {answer.text}"
        assert answer.headers["access-control-allow-origin"] == APP
        assert answer.headers["access-control-max-age"] == "600"
        assert "Origin" in answer.headers["vary"]
        assert "access-control-allow-credentials" not in answer.headers


def test_what_the_document_names_can_be_read(open_app: Served) -> None:
    document = open_app.app.openapi()
    named = {
        header
        for _, _, operation in operations(document)
        for response in operation["responses"].values()
        for header in response.get("headers", {})
    }
    exposed = {header.lower() for header in RESPONSE_HEADERS}
    assert {header for header in named if header.lower() not in exposed} == set()
    assert {"etag", "location", "retry-after", "x-request-id", "ratelimit", "tus-resumable", "upload-offset"} <= exposed
    assert "*" not in {*REQUEST_HEADERS, *RESPONSE_HEADERS, *METHODS}


def test_every_kind_of_answer_can_be_read(open_app: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors too: else a page learns only that something failed."""
    bare, client = TestClient(open_app.app, raise_server_exceptions=False), open_app.client
    job = open_app.submit()
    claimed = open_app.claim()
    open_app.finish(claimed)
    from_app = {"Origin": APP}
    answers = {
        200: client.get("/v1/jobs", headers=from_app),
        201: client.post("/v1/uploads", headers={**from_app, "Tus-Resumable": "1.0.0", "Upload-Length": "3"}),
        401: bare.get("/v1/jobs", headers=from_app),
        403: open_app.client_for("default", "viewer").delete(f"/v1/jobs/{job}", headers=from_app),
        404: client.get("/nowhere", headers=from_app),
        405: client.put("/v1/jobs", headers=from_app),
        413: client.put("/v1/datasets?name=d", content=b"x" * (2 << 20), headers=from_app),
        422: client.get("/v1/jobs?limt=1", headers=from_app),
    }
    stream = client.get(f"/v1/jobs/{job}/stream", headers=from_app)
    monkeypatch.setattr("service.jobs.routes.service.find", lambda *_: 1 / 0)
    answers[500] = client.get(f"/v1/jobs/{job}", headers=from_app)
    for status, answer in {**answers, 0: stream}.items():
        assert answer.status_code == (status or 200), answer.text
        assert answer.headers["access-control-allow-origin"] == APP, status
        assert "ETag" in answer.headers["access-control-expose-headers"]
        assert "Origin" in answer.headers["vary"]
        assert "access-control-allow-credentials" not in answer.headers
    assert stream.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("origin", STRANGERS)
def test_other_origins_read_nothing(open_app: Served, origin: str) -> None:
    for answer in (
        open_app.client.get("/v1/jobs", headers={"Origin": origin}),
        TestClient(open_app.app).get("/v1/jobs", headers={"Origin": origin}),
        preflight(TestClient(open_app.app), "/v1/jobs", "GET", origin=origin),
    ):
        assert "access-control-allow-origin" not in answer.headers
    refused = preflight(TestClient(open_app.app), "/v1/jobs", "GET", origin=origin)
    assert_problem(refused, 403, "cross_origin_refused")
    front = headers_for(origin, frozenset({APP, DEV}))
    assert front == {"Vary": "Origin"}


def test_a_preflight_for_more_than_is_allowed_is_refused(open_app: Served) -> None:
    bare = TestClient(open_app.app)
    assert_problem(preflight(bare, "/v1/jobs", "TRACE"), 403, "cross_origin_refused")
    assert_problem(preflight(bare, "/v1/jobs", "GET", "authorization, x-forwarded-for"), 403, "cross_origin_refused")
    # without the question of a preflight, OPTIONS is an operation like any other
    assert_problem(bare.options("/v1/jobs", headers={"Origin": APP}), 401, "key_missing")
    assert bare.options("/v1/jobs", headers={"Access-Control-Request-Method": "GET"}).status_code == 401


def test_without_the_setting_nobody_may(service: Served) -> None:
    answer = service.client.get("/v1/jobs", headers={"Origin": APP})
    assert [name for name in answer.headers if name.startswith("access-control")] == []
    assert preflight(TestClient(service.app), "/v1/jobs", "GET").status_code == 401
    assert headers_for(APP, frozenset()) == {}
    front = headers_for(APP, frozenset({APP, DEV}))
    assert front["Access-Control-Allow-Origin"] == APP
    assert "Retry-After" in front["Access-Control-Expose-Headers"]


def test_origins_are_checked_at_the_start(settings: Settings) -> None:
    for right in (APP, DEV, "http://127.0.0.1:3000", "https://[::1]:8443", "https://EXAMPLE.com"):
        assert checked_origin(right) == right.lower()
    wrong = ["*", "null", "app.example.com", f"{APP}/", f"{APP}/x", "https://*.example.com", "https://a b", "ftp://a"]
    for name in [*wrong, f"{APP}:443", "http://a:80", "https://u:p@a.example", "https://a:0", "https://", "https://.a"]:
        with pytest.raises(ValueError, match="TRAINKIT_CORS_ORIGINS"):
            create_app(replace(settings, cors_origins=(name,)))
    given = Settings.from_env({"TRAINKIT_CORS_ORIGINS": f" {APP} , {DEV},"}).cors_origins
    assert given == (APP, DEV)
