"""HEAD, OPTIONS and `Allow` of every resource, as HTTP defines them."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.support.api import Served, assert_problem, row

pytestmark = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
PUT_IN = {"plot": "curves", "index": "0", "name": "log.txt", "resolution": "1"}
METHODS = ("GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "QUERY", "BREW")


def resources(service: Served) -> dict[str, set[str]]:
    """Address of every resource of the OpenAPI document -> its declared methods."""
    found: dict[str, set[str]] = {}
    for path, item in service.app.openapi()["paths"].items():
        for name, value in PUT_IN.items():
            path = path.replace(f"{{{name}}}", value)
        found[path.replace("{", "x").replace("}", "")] = {method.upper() for method in item}
    return found


def expected_allow(declared: set[str]) -> str:
    return ", ".join(sorted(declared | {"OPTIONS"} | ({"HEAD"} if "GET" in declared else set())))


def test_options_names_every_method(service: Served) -> None:
    for path, declared in resources(service).items():
        answer = service.client.options(path)
        assert (answer.status_code, answer.headers["allow"]) == (204, expected_allow(declared)), path
        assert answer.content == b""


def test_a_method_that_is_not_declared_is_405_with_every_one_that_is(service: Served) -> None:
    tried = 0
    for path, declared in resources(service).items():
        for method in set(METHODS) - declared - {"HEAD", "OPTIONS"}:
            tried += 1
            answer = service.client.request(method, path)
            if ":" in path and answer.status_code == 404:
                continue  # `x:reread` may also be an id
            if path == "/v1/jobs/stream" and answer.status_code in (404, 422):
                continue  # so may `stream`
            assert_problem(answer, 405, "method_not_allowed")
            assert answer.headers["allow"] == expected_allow(declared), (method, path)
    assert tried > 300


def test_head_is_get_without_its_body(service: Served) -> None:
    job = service.submit()
    claimed = service.claim()
    service.append(claimed, row("loss", 1.0))
    service.finish(claimed)
    parts = ("", "/events", "/metrics", "/metrics.csv", "/logs", "/evaluation", "/plots/curves.png", "/nothing")
    for path in (
        "/v1/jobs",
        "/healthz",
        "/v1/catalog",
        "/v1/jobs/unknown",
        *(f"/v1/jobs/{job}{part}" for part in parts),
    ):
        got, head = service.client.get(path), service.client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        kept = {"content-type", "etag", "cache-control", "allow", "content-disposition"}
        assert {name: head.headers.get(name) for name in kept} == {name: got.headers.get(name) for name in kept}, path


def test_head_of_a_stream_ends(service: Served) -> None:
    job = service.submit()
    answer = service.client.head(f"/v1/jobs/{job}/stream")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")


def test_head_and_options_need_a_key(service: Served) -> None:
    bare = TestClient(service.app)
    for method in ("HEAD", "OPTIONS"):
        assert bare.request(method, "/v1/jobs").status_code == 401
        assert service.client.request(method, "/v1/nowhere").status_code == 404


def test_head_is_counted_under_the_name_of_its_route(service: Served) -> None:
    job = service.submit()
    service.client.head(f"/v1/jobs/{job}")
    text = service.client.get("/metrics").text
    counted: list[Any] = [line for line in text.splitlines() if 'method="HEAD"' in line and "/v1/jobs/{job_id}" in line]
    assert counted
