"""415 for a body of a type that the route does not take, 406 where `Accept` allows no answer of the route: everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from service.openapi import operations
from tests.support.api import Served, assert_problem

pytestmark = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
PUT_IN = {"plot": "curves", "index": "0", "name": "log.txt"}
XML = {"Content-Type": "application/xml"}
TUS = {"Tus-Resumable": "1.0.0", "Upload-Length": "4", "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
ANY = "application/octet-stream"


def requests(service: Served, **values: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (method, address, operation) of every operation; parameters without a value name nothing that exists."""
    for path, method, operation in operations(service.app.openapi()):
        for name, value in {**PUT_IN, **values}.items():
            path = path.replace(f"{{{name}}}", value)
        yield method.upper(), path.replace("{", "x").replace("}", ""), operation


def answered(operation: dict[str, Any]) -> set[str]:
    """Media types of the operation's answers where all goes well."""
    return {
        kind for status, one in operation["responses"].items() if status[0] == "2" for kind in one.get("content", {})
    }


def a_model(service: Served) -> str:
    service.submit()
    model = service.finish(service.claim())
    assert model is not None
    return model


def test_a_body_of_another_type_is_415(service: Served) -> None:
    refused, taken = 0, []
    for method, path, operation in requests(service, model=a_model(service)):
        kinds = set(operation.get("requestBody", {}).get("content", {}))
        if not kinds:
            continue
        answer = service.client.request(method, path, content=b"<a/>", headers={**XML, **TUS})
        if kinds == {ANY}:
            taken.append(operation["operationId"])
            assert answer.status_code != 415, f"{method} {path}"
            continue
        assert_problem(answer, 415, "unsupported_media_type")
        refused += 1
    assert refused > 30
    assert taken == ["uploadDataset"]


def test_a_type_that_is_taken_is_never_415(service: Served) -> None:
    tried = 0
    for method, path, operation in requests(service, model=a_model(service)):
        for kind in operation.get("requestBody", {}).get("content", {}):
            if path.endswith(("/predict", "/evaluate")):
                continue  # a worker looks at these
            answer = service.client.request(method, path, content=b"!", headers={"Content-Type": kind, **TUS})
            assert answer.status_code != 415, f"{method} {path} {kind}: {answer.text}"
            tried += 1
    assert tried > 35


@pytest.mark.parametrize("kind", ["application/merge-patch+json", "Application/JSON; charset=utf-8"])
def test_json_is_taken_under_its_other_names(service: Served, kind: str) -> None:
    job = service.submit()
    answer = service.client.patch(f"/v1/jobs/{job}", content=b'{"notes": "seen"}', headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["notes"]) == (200, "seen")


def test_a_type_without_a_body_is_not_looked_at(service: Served) -> None:
    job = service.submit()
    answer = service.client.post(f"/v1/jobs/{job}/stop", headers=XML)
    assert answer.status_code == 200, answer.text


def test_the_first_bytes_of_an_upload_are_not_dropped_for_their_type(service: Served) -> None:
    answer = service.client.post("/v1/uploads", content=b"1234", headers={**TUS, "Content-Type": "text/csv"})
    assert_problem(answer, 415, "unsupported_media_type")
    assert answer.headers["accept"] == "application/offset+octet-stream"
    assert service.client.get("/v1/uploads").json()["data"] == []


def test_an_accept_without_an_answer_is_406(service: Served) -> None:
    refused = 0
    for method, path, operation in requests(service, model=a_model(service)):
        kinds = answered(operation)
        declared = "406" in operation["responses"]
        assert declared == (method != "HEAD" and bool(kinds) and ANY not in kinds), f"{method} {path}"
        if not declared:
            continue
        for accept in ("application/vnd.unknown", "text/vnd.unknown, application/json;q=0, */*;q=0"):
            answer = service.client.request(method, path, headers={"Accept": accept})
            assert_problem(answer, 406, "not_acceptable")
            assert sorted(kinds)[0] in answer.json()["detail"], f"{method} {path}"
            refused += 1
    assert refused > 150


def test_an_accept_with_an_answer_is_not_406(service: Served) -> None:
    tried = 0
    for method, path, operation in requests(service, model=a_model(service)):
        for kind in answered(operation) if method == "GET" else ():
            main = kind.partition("/")[0]
            for accept in (
                kind,
                f"image/x, {kind.upper()};q=0.1",
                f"{main}/*",
                "*/*;q=0.8",
                "application/problem+json",
            ):
                # HEAD is answered like GET, and a stream ends with its head
                answer = service.client.head(path, headers={"Accept": accept})
                assert answer.status_code != 406, f"{path} {accept}"
                tried += 1
    assert tried > 250


def test_nothing_is_written_before_406(service: Served) -> None:
    body = {"name": "dashboard", "role": "viewer"}
    before = service.client.get("/v1/keys").json()["data"]
    assert_problem(service.client.post("/v1/keys", json=body, headers={"Accept": "image/png"}), 406, "not_acceptable")
    assert service.client.get("/v1/keys").json()["data"] == before
