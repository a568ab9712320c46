"""Large requests to predict and evaluate lie in a file while a worker has them, and nowhere afterwards."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.body_limits import BODY_BYTES
from service.inference_requests import repository as inference_requests
from service.inference_requests.repository import REQUEST_FILE
from tests.support.api import Served

LARGE = b'{"inputs": [' + b"[0.25, 1]," * (BODY_BYTES // 8) + b"[0.5, 1]]}"


@pytest.fixture
def model(service: Served) -> str:
    service.submit()
    model = service.finish(service.claim())
    assert model is not None
    return model


def parts(service: Served) -> list[Path]:
    return list((service.context.storage.root / "incoming").iterdir())


def answer_next(service: Served, seen: list[tuple[bytes, bytes | None]]) -> threading.Thread:
    """A worker that notes what it is given, the request and the content of its file, and answers."""

    def work() -> None:
        for _ in range(200):
            with service.sessions.begin() as session:
                claimed = inference_requests.claim(session, "w", 30)
                if claimed is None:
                    continue
                name = claimed.options.get(REQUEST_FILE)
                seen.append((claimed.request, service.context.storage.part(name).read_bytes() if name else None))
                body = json.dumps({"predictions": []}).encode()
                inference_requests.answer(session, claimed.claim, body, "application/json")
                return

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("chunked", [False, True])
def test_a_worker_finds_a_large_request_in_a_file(service: Served, model: str, chunked: bool) -> None:
    def chunks() -> Iterator[bytes]:
        for start in range(0, len(LARGE), 50_000):
            yield LARGE[start : start + 50_000]

    seen: list[tuple[bytes, bytes | None]] = []
    thread = answer_next(service, seen)
    content = chunks() if chunked else LARGE
    headers = {"Content-Type": "application/json"}
    answer = service.client.post(f"/v1/models/{model}/predict", content=content, headers=headers)
    thread.join()
    assert (answer.status_code, answer.json()) == (200, {"predictions": []})
    assert seen == [(b"", LARGE)]
    assert parts(service) == []


def test_a_small_request_needs_no_file(service: Served, model: str) -> None:
    seen: list[tuple[bytes, bytes | None]] = []
    thread = answer_next(service, seen)
    body = b'{"inputs": [' + b" " * (BODY_BYTES - 14) + b"]}"
    assert len(body) == BODY_BYTES
    service.client.post(f"/v1/models/{model}/predict", content=body, headers={"Content-Type": "application/json"})
    thread.join()
    assert seen == [(body, None)]


def test_nothing_is_left_of_a_refused_request(service: Served, model: str) -> None:
    for path, kind, status in (
        ("predict", "application/x-unknown", 415),
        ("evaluate", "application/x-unknown", 415),
        ("predict", "application/json", 503),  # no worker
        ("evaluate", "application/json", 503),
    ):
        answer = service.client.post(f"/v1/models/{model}/{path}", content=LARGE, headers={"Content-Type": kind})
        assert answer.status_code == status, path
        assert parts(service) == []
    too_large = b" " * (service.context.settings.max_body_bytes + 1)

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(too_large), 100_000):
            yield too_large[start : start + 100_000]

    assert service.client.post(f"/v1/models/{model}/predict", content=chunks()).status_code == 413
    assert parts(service) == []


def test_only_names_of_temporary_files_are_paths(service: Served) -> None:
    for name in ("../trainkit.db", "x.part", "a" * 32, f"{'0' * 32}.part/..", f"/{'0' * 32}.part"):
        with pytest.raises(ValueError, match="not a temporary file"):
            service.context.storage.part(name)
