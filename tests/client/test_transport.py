"""Retries, idempotency keys and errors, against a server that answers as the test says."""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.scripted_server import CUT, Reply, ScriptedServer, problem, scripted_server
from trainkit_client import (
    AsyncClient,
    BadResponse,
    Client,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Refused,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
    retries,
)

OPENAPI = json.loads((Path(__file__).parents[1] / "clients" / "released-openapi.json").read_text())
PAUSE = retries.pause
JOB = {"id": "job_" + "0" * 26, "state": "queued"}


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were drawn; they are a thousandth as long as they were to be."""
    drawn: list[float] = []

    def shortened(attempt: int, retry_after: float | None = None) -> float:
        drawn.append(PAUSE(attempt, retry_after))
        return drawn[-1] / 1000

    monkeypatch.setattr(retries, "pause", shortened)
    return drawn


def client_of(server: ScriptedServer, **options: Any) -> Client:
    return Client(server.url, "tk_test", **options)


@pytest.mark.parametrize("first", [problem(429), problem(502), problem(503), problem(504), CUT])
def test_a_read_is_repeated_until_it_succeeds(first: Reply, pauses: list[float]) -> None:
    with scripted_server(first, first, Reply(200, JOB)) as server, client_of(server) as client:
        assert client.jobs.get(JOB["id"]).state == "queued"
    assert len(server.exchanges) == 3
    assert len(pauses) == 2


def test_a_job_is_created_with_one_key_for_all_tries() -> None:
    with scripted_server(CUT, problem(503), Reply(201, JOB)) as server, client_of(server) as client:
        client.jobs.create(dataset="d", model="mlp")
        client.transport.connection  # noqa: B018 - still open
    keys = [exchange.headers["idempotency-key"] for exchange in server.exchanges]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert {exchange.body for exchange in server.exchanges} == {b'{"dataset": "d", "model": "mlp"}'}


def test_two_requests_have_two_keys_and_a_given_key_is_sent() -> None:
    with scripted_server(Reply(201, JOB), Reply(201, JOB), Reply(201, JOB)) as server, client_of(server) as client:
        client.jobs.create(dataset="d", model="mlp")
        client.jobs.create(dataset="d", model="mlp")
        client.jobs.create(dataset="d", model="mlp", idempotency_key="mine")
    first, second, third = (exchange.headers["idempotency-key"] for exchange in server.exchanges)
    assert first != second
    assert third == "mine"


@pytest.mark.parametrize(
    ("answer", "error"), [(problem(503), ServerError), (problem(502), ServerError), (CUT, Unreachable)]
)
def test_what_may_have_been_carried_out_and_has_no_key_is_sent_once(answer: Reply, error: type[Exception]) -> None:
    with scripted_server(answer, Reply(201, {})) as server, client_of(server) as client, pytest.raises(error):
        client.request("POST", "/v1/keys", json={"name": "ci"})
    assert len(server.exchanges) == 1


def test_what_was_refused_for_its_rate_was_not_carried_out_and_is_repeated() -> None:
    with scripted_server(problem(429), Reply(201, {"id": "key_1"})) as server, client_of(server) as client:
        assert client.request("POST", "/v1/keys", json={"name": "ci"}) == {"id": "key_1"}


def test_the_posts_with_keys_are_those_of_the_api_document() -> None:
    keyed = {
        path.replace("{job_id}", "job_1")
        for path, methods in OPENAPI["paths"].items()
        if any(
            parameter.get("name", "").lower() == "idempotency-key"
            for parameter in methods.get("post", {}).get("parameters", ())
        )
    }
    posts = {path.replace("{job_id}", "job_1") for path, methods in OPENAPI["paths"].items() if "post" in methods}
    assert keyed == {path for path in posts if retries.KEYED_POSTS.fullmatch(path)}


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_obeyed(form: str, pauses: list[float]) -> None:
    now = datetime.now(UTC) - timedelta(hours=3)  # the clock of the service is not that of this machine
    value = "7" if form == "seconds" else format_datetime(now + timedelta(seconds=7), usegmt=True)
    waiting = problem(429, **{"Retry-After": value, "Date": format_datetime(now, usegmt=True)})
    with scripted_server(waiting, Reply(200, JOB)) as server, client_of(server) as client:
        client.jobs.get(JOB["id"])
    assert 6 <= pauses[0] <= 8.1


def test_a_wait_beyond_minutes_fails_at_once_and_says_how_long() -> None:
    busy = problem(429, **{"Retry-After": "86400"})
    with scripted_server(busy) as server, client_of(server) as client, pytest.raises(TooManyRequests) as raised:
        client.jobs.get(JOB["id"])
    assert raised.value.retry_after == 86400
    assert len(server.exchanges) == 1


def test_pauses_are_drawn_from_all_of_a_growing_interval() -> None:
    drawn = [[PAUSE(attempt) for _ in range(300)] for attempt in range(8)]
    for attempt, values in enumerate(drawn):
        bound = min(20.0, 0.5 * 2**attempt)
        assert 0 <= min(values) < 0.1 * bound
        assert 0.9 * bound < max(values) <= bound


def test_the_number_of_tries_is_bounded() -> None:
    replies = [problem(503)] * 9
    with scripted_server(*replies) as server, client_of(server, max_retries=2) as client, pytest.raises(ServerError):
        client.jobs.get(JOB["id"])
    assert len(server.exchanges) == 3


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, Invalid),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (410, NotFound),
        (413, Refused),
        (422, Invalid),
        (500, ServerError),
    ],
)
def test_errors_carry_the_problem_document(status: int, error: type[Exception]) -> None:
    document = {
        "status": status,
        "code": "some_code",
        "title": "Some title",
        "detail": "Some detail.",
        "request_id": "req_1",
        "errors": [{"pointer": "/model", "code": "unknown", "message": "unknown model", "hint": "Try mlp."}],
        "future": {"field": 1},
    }
    reply = Reply(status, document, {"Content-Type": "application/problem+json"})
    with scripted_server(reply) as server, client_of(server) as client, pytest.raises(error) as raised:
        client.jobs.get(JOB["id"])
    problem_error: Any = raised.value
    assert problem_error.document == document
    assert (problem_error.code, problem_error.request_id) == ("some_code", "req_1")
    assert problem_error.errors[0].pointer == "/model"
    assert "Some detail." in str(problem_error)
    assert "Try mlp." in str(problem_error)


def test_what_is_no_trainkit_service_is_named_as_such() -> None:
    page = Reply(200, b"<html>hello</html>", {"Content-Type": "text/html"})
    with scripted_server(page) as server, client_of(server) as client, pytest.raises(BadResponse):
        client.jobs.get(JOB["id"])
    moved = Reply(308, b"", {"Location": "https://elsewhere.example/v1/jobs"})
    with scripted_server(moved) as server, client_of(server) as client, pytest.raises(BadResponse, match="elsewhere"):
        client.jobs.get(JOB["id"])  # the key is sent nowhere else
    assert len(server.exchanges) == 1


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.monotonic()
    with Client(f"http://127.0.0.1:{port}", "tk_test") as client, pytest.raises(Unreachable, match="nothing listens"):
        client.jobs.get(JOB["id"])
    assert time.monotonic() - began < 5


def test_the_asynchronous_client_does_the_same() -> None:
    async def run(url: str) -> str:
        async with AsyncClient(url, "tk_test") as client:
            return (await client.jobs.create(dataset="d", model="mlp")).id

    with scripted_server(CUT, problem(503), Reply(201, JOB)) as server:
        assert anyio.run(run, server.url) == JOB["id"]
    assert len({exchange.headers["idempotency-key"] for exchange in server.exchanges}) == 1


@pytest.mark.parametrize("continues", [True, False])
def test_a_download_goes_on_after_a_cut(tmp_path: Path, continues: bool) -> None:
    content = bytes(range(256)) * 400
    etag = {"ETag": '"1"'} if continues else {}
    begun = Reply(200, content, etag, cut_after=70_000)
    rest = Reply(206, content[70_000:], {**etag, "Content-Range": f"bytes 70000-{len(content) - 1}/{len(content)}"})

    with scripted_server(begun, rest if continues else Reply(200, content)) as server, client_of(server) as client:
        path = client.transport.download("/v1/file", tmp_path / "file.bin")
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
    assert server.exchanges[1].headers.get("range") == ("bytes=70000-" if continues else None)


def test_a_download_that_fails_leaves_no_file(tmp_path: Path) -> None:
    wrong = Reply(200, b"abc", {"Repr-Digest": "sha-256=:" + "A" * 43 + "=:"})
    with scripted_server(problem(404), wrong) as server, client_of(server) as client:
        with pytest.raises(NotFound):
            client.transport.download("/v1/file", tmp_path / "file.bin")
        with pytest.raises(BadResponse, match="hash"):
            client.transport.download("/v1/file", tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []
