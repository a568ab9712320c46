"""Every route refuses query parameters that it does not know, and keys that are given twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Served, assert_problem

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
JSON = {"Content-Type": "application/json"}
YAML = {"Content-Type": "application/yaml"}
NAMES = {"plot": "curves", "index": "0", "resolution": "1"}


def operations(service: Served) -> list[tuple[str, str, dict[str, Any]]]:
    """(method, path with every name filled in, operation) of all routes."""
    found = []
    for path, item in service.app.openapi()["paths"].items():
        for method, operation in item.items():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    path = path.replace(f"{{{parameter['name']}}}", NAMES.get(parameter["name"], "x1"))
            found.append((method, path, operation))
    return found


@SQLITE
def test_every_route_refuses_an_unknown_query_parameter(service: Served) -> None:
    routes = operations(service)
    assert len(routes) > 60
    for method, path, _ in routes:
        answer = service.client.request(method, path, params={"zzz": "1"}, headers={"Tus-Resumable": "1.0.0"})
        if method == "head":
            assert answer.status_code == 422, path
            continue
        if path.startswith("/v1/auth/") and answer.status_code == 404:
            assert answer.json()["code"] == "sign_in_off"  # without a provider these are not there
            continue
        (error,) = assert_problem(answer, 422, "invalid_request")["errors"]
        assert (error["pointer"], error["code"]) == ("query/zzz", "unknown_parameter"), (method, path)
        assert error["hint"], (method, path)


@SQLITE
def test_every_query_parameter_that_is_described_is_known(service: Served) -> None:
    for method, path, operation in operations(service):
        names = [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"]
        answer = service.client.request(method, path, params=[(name, "1") for name in names])
        assert "unknown_parameter" not in answer.text, (method, path, names)


@SQLITE
def test_a_mistyped_parameter_gets_the_nearest(service: Served) -> None:
    (error,) = assert_problem(service.client.get("/v1/jobs?limt=3"), 422, "invalid_request")["errors"]
    assert error["hint"] == 'Did you mean "limit"?'
    assert service.client.get("/v1/jobs?label.team=a&label.x=b").status_code == 200
    assert_problem(service.client.get("/v1/webhooks?label.team=a"), 422, "invalid_request")


TWICE = [
    (b'{"name": "a", "name": "b"}', JSON, ["/name"]),
    (b'{"train": {"epochs": 1, "seed": 1, "epochs": 2}}', JSON, ["/train/epochs"]),
    (b'{"augment": [{"kind": "noise"}, {"kind": "noise", "kind": "hue"}]}', JSON, ["/augment/1/kind"]),
    (b"a: 1\nb: {c: 1, c: 2}\na: 3\n", YAML, ["/b/c", "/a"]),
    (b"augment:\n- kind: noise\n  std: 0\n  std: 1\n", YAML, ["/augment/0/std"]),
    ((Path(__file__).parents[1] / "data" / "cases" / "dup_keys.yaml").read_bytes(), YAML, ["/optimizer"]),
]


@pytest.mark.parametrize(("body", "headers", "places"), TWICE, ids=range(len(TWICE)))
@SQLITE
def test_a_key_given_twice_is_refused_at_its_place(
    service: Served, body: bytes, headers: dict[str, str], places: list[str]
) -> None:
    for path in ("/v1/jobs", "/v1/specs:validate", "/v1/experiments"):
        problem = assert_problem(service.client.post(path, content=body, headers=headers), 422, "duplicate_key")
        assert [error["pointer"] for error in problem["errors"]] == places
        assert all(error["hint"] for error in problem["errors"])
    assert ("line" in problem["detail"]) == (headers is YAML)


@SQLITE
def test_every_route_with_a_json_body_refuses_a_key_given_twice(service: Served) -> None:
    body, tried = b'{"a": {"b": 1, "b": 2}}', []
    service.submit()
    model = service.finish(service.claim())  # one that is there: its project is checked before the body is read
    for method, path, operation in operations(service):
        path = path.replace("/models/x1/", f"/models/{model}/")
        if "application/json" in operation.get("requestBody", {}).get("content", {}):
            answer = service.client.request(method, path, content=body, headers=JSON)
            assert assert_problem(answer, 422, "duplicate_key")["errors"][0]["pointer"] == "/a/b", (method, path)
            tried.append(path)
    assert len(tried) > 12


@SQLITE
def test_what_no_row_can_hold_is_refused_at_its_place(service: Served) -> None:
    for body, code in ((b'{"a": [1e400]}', "not_finite"), (b'{"a": ["\\u0000"]}', "not_text")):
        answer = service.client.post("/v1/webhooks", content=body, headers=JSON)
        (error,) = assert_problem(answer, 422, code)["errors"]
        assert (error["pointer"], bool(error["hint"])) == ("/a/0", True)
