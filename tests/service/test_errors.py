"""Every failure is a problem document, and bad input is never the service's fault."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api import Served, assert_problem

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


def test_unknown_addresses_and_methods(service: Served) -> None:
    assert_problem(service.client.get("/nowhere"), 404, "not_found")
    assert_problem(service.client.patch("/v1/jobs"), 405, "method_not_allowed")
    assert service.client.patch("/v1/jobs").headers["allow"]
    assert_problem(service.client.get("/v1/jobs/job_none"), 404, "not_found")


def test_validation_says_where(service: Served) -> None:
    errors = assert_problem(service.client.get("/v1/jobs?limit=0&state=x"), 422, "invalid_request")["errors"]
    assert {error["pointer"] for error in errors} == {"query/limit", "query/state"}
    job = service.submit()
    errors = assert_problem(service.client.post(f"/v1/jobs/{job}/stop", json={"kep": 1}), 422, "invalid_request")[
        "errors"
    ]
    assert errors[0]["pointer"] == "/kep"
    assert errors[0]["hint"]


def test_all_errors_of_a_spec_at_once(service: Served) -> None:
    spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp", "hiden": [1]}, "train": {"epochs": 0}}
    for path in ("/v1/jobs", "/v1/specs:validate"):
        document = assert_problem(service.client.post(path, json=spec), 422, "invalid_spec")
        assert [error["pointer"] for error in document["errors"]] == ["/model/hiden", "/train/epochs"]
        assert document["detail"].startswith("The spec has 2 problems. /model/hiden: ")
        assert "hidden" in document["errors"][0]["hint"]


BODIES = [
    (b"", "application/json"),
    (b"{", "application/json"),
    (b"\xff\xfe", "application/json"),
    (b'{"name": "\\u0000", "dataset": "d", "model": {"kind": "mlp"}}', "application/json"),
    (b'{"name": "\\ud800", "dataset": "d", "model": {"kind": "mlp"}}', "application/json"),
    (b'{"train": {"epochs": 1' + b"0" * 400 + b"}}", "application/json"),
    (b'{"train": {"epochs": 1' + b"0" * 5000 + b"}}", "application/json"),
    (b'{"train": {"epochs": NaN}}', "application/json"),
    (b'{"train": {"epochs": 1e999}}', "application/json"),
    (b"[" * 100_000, "application/json"),
    (b'{"a":' * 40_000, "application/json"),
    (b"[]", "application/json"),
    (b"null", "application/json"),
    (b'"text"', "application/json"),
    (b"a: &a [x]\nb: *a", "application/yaml"),
    (b"? [a]\n: 1", "application/yaml"),
    (b"a: 2020-01-01", "application/yaml"),
    (b"a: 2020-99-99", "application/yaml"),
    (b"a: .inf", "application/yaml"),
    (b"- {", "application/yaml"),
    (b"[" * 20_000, "application/yaml"),
    (b"!!python/object/apply:os.system [id]", "application/yaml"),
    (b"--- 1\n--- 2\n", "application/yaml"),
    (b"\x00", "application/yaml"),
]


@pytest.mark.parametrize(("body", "kind"), BODIES, ids=range(len(BODIES)))
@SQLITE
def test_no_body_is_the_service_s_fault(service: Served, body: bytes, kind: str) -> None:
    for path in ("/v1/jobs", "/v1/specs:validate", "/v1/specs:init-report"):
        answer = service.client.post(path, content=body, headers={"Content-Type": kind})
        assert answer.status_code == 422, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    model = service.finish(_claimed(service))
    for path in (
        f"/v1/models/{model}/predict",
        "/v1/jobs/x/stop",
        "/v1/keys",
        "/v1/datasets/x/augmentation-preview.png",
    ):
        answer = service.client.post(path, content=body, headers={"Content-Type": kind})
        assert answer.status_code in (201, 400, 404, 415, 422), answer.text


def _claimed(service: Served) -> Any:
    service.submit()
    return service.claim()


QUERIES = [
    "/v1/jobs?after=%00",
    "/v1/jobs/%00",
    "/v1/jobs?dataset=%ff%fe",
    "/v1/jobs?label.a=%00",
    "/v1/jobs?label.%20=x",
    "/v1/jobs?label.a=%ed%a0%80",
    "/v1/jobs?updated_after=0001-01-01T00:00:00%2B14:00",
    "/v1/jobs?updated_after=9999-12-31T23:59:59-14:00",
    "/v1/jobs?updated_after=yesterday",
    "/v1/jobs?limit=99999999999999999999999999",
    "/v1/datasets?name=%00",
    "/v1/datasets?status=nonsense",
    "/v1/models/" + "x" * 5000,
    "/v1/jobs/x/events?after=99999999999",
    "/v1/jobs/%ff",
    "/v1/jobs/x/artifacts/%2e%2e%2f%2e%2e",
]


@pytest.mark.parametrize("query", QUERIES)
def test_no_address_is_the_service_s_fault(service: Served, query: str) -> None:
    answer = service.client.get(query)
    assert answer.status_code in (200, 404, 422), answer.text


def test_a_number_that_no_column_holds(service: Served) -> None:
    job = service.submit()
    body = b'{"if_seq": ' + b"9" * 40 + b"}"
    answer = service.client.post(f"/v1/jobs/{job}/stop", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 422)


def test_idempotency_keys_may_be_anything_a_header_holds(service: Served) -> None:
    spec = {"dataset": service.ready_dataset(), "model": {"kind": "mlp"}}
    for key in ("ü", "x" * 255, "'; DROP TABLE jobs; --"):
        assert service.client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": key.encode()}).status_code == 201
    answer = service.client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "x" * 256})
    assert_problem(answer, 422, "invalid_request")


@SQLITE
def test_bodies_are_bounded_whether_they_say_their_size_or_not(service: Served) -> None:
    def endless() -> Any:
        for _ in range(4):
            yield b"x" * (1 << 19)

    model = service.finish(_claimed(service))
    for path in ("/v1/jobs", "/v1/keys", f"/v1/models/{model}/predict", "/v1/jobs/x/stop"):
        assert_problem(service.client.post(path, content=b"x" * ((1 << 20) + 1)), 413, "too_large")
        assert_problem(service.client.post(path, content=endless()), 413, "too_large")


@SQLITE
def test_a_defect_is_a_problem_too_and_tells_nothing(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("the secret")

    monkeypatch.setattr("service.jobs.routes.service.find", broken)
    answer = service.client.get("/v1/jobs/x")
    assert "secret" not in answer.text
    assert_problem(answer, 500, "internal")
