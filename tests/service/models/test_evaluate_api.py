"""POST /v1/models/{id}/evaluate: what the API asks a worker, and what it refuses itself."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from service.inference_requests import repository as inference_requests
from service.inference_requests.repository import ClaimedInferenceRequest
from tests.support.api import Served

EVALUATION = {
    "split": "all",
    "samples": 2,
    "metrics": {"loss": 0.1, "accuracy": 0.5},
    "per_class": [],
    "confusion_matrix": [],
    "classes": [],
    "warnings": [],
}


@pytest.fixture
def model(service: Served) -> str:
    service.submit(name="digits")
    return service.finish(service.claim())


def evaluate(service: Served, model: str, **request: Any) -> tuple[Any, ClaimedInferenceRequest]:
    """Send the request and answer it as a worker would; returns (answer, what the worker was asked)."""
    requests: list[ClaimedInferenceRequest] = []

    def work() -> None:
        while not requests:
            with service.sessions.begin() as session:
                claimed = inference_requests.claim(session, "w", 30)
                if claimed is not None:
                    requests.append(claimed)
                    inference_requests.answer(
                        session, claimed.claim, json.dumps(EVALUATION).encode(), "application/json"
                    )

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    answer = service.client.post(f"/v1/models/{model}/evaluate", **request)
    worker.join(10)
    return answer, requests[0]


def test_a_dataset_is_named_by_its_id(service: Served, model: str) -> None:
    dataset = service.ready_dataset()
    answer, request = evaluate(service, model, json={"dataset": dataset, "part": "test"})
    assert answer.json() == EVALUATION
    assert (request.kind, request.media_type, request.request) == ("evaluate", "application/json", b"{}")
    assert request.options["dataset_key"].startswith("prepared/")
    assert (request.options["part"], request.options["is_training_dataset"]) == ("test", False)
    _, request = evaluate(service, model, json={"dataset": {"id": dataset, "target": "y"}})
    assert (request.options["part"], request.options["target"]) == ("all", "y")


def test_a_form_is_handed_on_with_its_boundary(service: Served, model: str) -> None:
    _, request = evaluate(service, model, files={"image": b"x"}, data={"columns": "{}"})
    assert request.media_type == "multipart/form-data"
    assert request.request.startswith(f"--{request.options['boundary']}".encode())


def test_a_file_is_handed_on(service: Served, model: str) -> None:
    url = {"content": b"a,y\n1,x\n", "headers": {"Content-Type": "text/csv; charset=utf-8"}}
    answer, request = evaluate(service, model, **url, params={"target": "y", "ignore_extra": "true"})
    assert answer.status_code == 200
    assert (request.request, request.media_type) == (b"a,y\n1,x\n", "text/csv")
    assert request.options == {"target": "y", "ignore_extra": True, "charset": "utf-8"}
    rows = {"inputs": [{"a": 1, "y": "x"}]}
    _, request = evaluate(service, model, json=rows)
    assert json.loads(request.request) == rows
    _, request = evaluate(service, model, content=b"PK", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert request.media_type == "application/octet-stream"


@pytest.mark.parametrize(
    ("request_", "status", "code", "pointer"),
    [
        ({"content": b"", "headers": {"Content-Type": "text/csv"}}, 422, "empty", None),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 422, "not_json", None),
        ({"json": {"datasets": "ds_1"}}, 422, "invalid_input", "/dataset"),
        ({"json": {"dataset": 3}}, 422, "invalid_request", "/dataset"),
        ({"json": {"dataset": "ds_1", "part": "tests"}}, 422, "invalid_request", "/part"),
        ({"json": {"dataset": "ds_1", "parts": "test"}}, 422, "invalid_request", "/parts"),
        ({"json": {"dataset": "ds_nonsense"}}, 404, "not_found", None),
        ({"content": b"x", "headers": {"Content-Type": "text/html"}}, 415, "unsupported_media_type", None),
        ({"content": b"x", "headers": {"Content-Type": "multipart/mixed"}}, 415, "unsupported_media_type", None),
    ],
)
def test_what_no_worker_need_look_at_is_refused(
    service: Served, model: str, request_: dict[str, Any], status: int, code: str, pointer: str | None
) -> None:
    answer = service.client.post(f"/v1/models/{model}/evaluate", **request_)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    if pointer is not None:
        assert answer.json()["errors"][0]["pointer"] == pointer
    with service.sessions.begin() as session:
        assert inference_requests.claim(session, "w", 30) is None


def test_another_project_s_dataset_is_not_there(service: Served, model: str) -> None:
    other_dataset = service.ready_dataset(service.client_for("another"))
    answer = service.client.post(f"/v1/models/{model}/evaluate", json={"dataset": other_dataset})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
