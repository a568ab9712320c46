"""A tracking server that is away, hangs or refuses: it hurts its own copies only, and clients see why."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from service.mirrors import rest_client
from service.outbox.tables import MirroredJob
from tests.support.api import Served, row
from tests.support.mirrors import copy_due, create_mirror, let_retry, mirror_sender, mirrored
from tests.support.webhook_receiver import deliveries, hook, receiving, send_due

pytestmark = pytest.mark.postgresql


@pytest.fixture
def hanging() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def started(service: Served) -> str:
    """A running job with a row."""
    job = service.submit()
    service.append(service.claim(), row("loss", 1.0))
    return job


def test_nothing_listens_and_the_pauses_grow(service: Served) -> None:
    mirror = create_mirror(service, url="http://127.0.0.1:9")
    job, pauses = started(service), []
    for failures in range(1, 8):
        assert copy_due(service) == 1
        shown = mirrored(service, mirror, job)
        assert (shown["failures"], shown["state"], shown["metric_seq"]) == (failures, "pending", 0)
        assert shown["error"].startswith("no connection")
        with service.sessions() as session:
            copy = session.get_one(MirroredJob, (mirror["id"], job))
            assert copy.next_attempt_at is not None
            assert copy.last_attempt_at is not None
            pauses.append((copy.next_attempt_at - copy.last_attempt_at).total_seconds())
        let_retry(service)
    planned = (5, 30, 120, 600, 1800, 3600, 3600)
    for pause, seconds in zip(pauses, planned, strict=True):
        assert 0.9 * seconds <= pause <= 1.1 * seconds + 5


def test_after_five_failures_the_host_is_left_alone_and_other_projects_are_not(service: Served) -> None:
    create_mirror(service, url="http://127.0.0.1:9")
    for _ in range(7):
        started(service)
    begun = sum(mirror_sender_round(service) for _ in range(5))
    assert 5 <= begun <= 6, "two at once: one may be under way when the fifth fails"


def mirror_sender_round(service: Served) -> int:
    sender = mirror_sender(service)
    begun = sender.start_due()
    assert sender.drain(60)
    return begun


def test_a_server_that_hangs_holds_up_nobody_else(
    service: Served, hanging: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest_client, "REQUEST_SECONDS", 3.0)
    mirror = create_mirror(service, url=hanging)
    job = started(service)
    sender, stop = mirror_sender(service), threading.Event()
    running = threading.Thread(target=sender.run, args=(stop,))
    running.start()
    try:
        with receiving() as receiver:
            webhook = hook(service, receiver.url, events=["job.queued"])
            begun = time.monotonic()
            service.submit()
            assert send_due(service) == 1
            assert time.monotonic() - begun < 2
            assert deliveries(service, webhook["id"])[0]["state"] == "delivered"
        end = time.monotonic() + 30
        while (shown := mirrored(service, mirror, job))["error"] is None:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert shown["error"] == "no complete answer to GET /api/2.0/mlflow/experiments/get-by-name within 3 s"
    finally:
        stop.set()
        running.join(30)
    assert not running.is_alive()


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        (503, b"later", "pending"),
        (401, b'{"error_code": "UNAUTHENTICATED", "message": "no token"}', "pending"),
        (200, b"<html>a portal</html>", "pending"),
        (302, b"", "pending"),
        (400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "bad\x00 name"}', "failed"),
    ],
)
def test_what_a_server_answers_is_shown(service: Served, status: int, body: bytes, state: str) -> None:
    with receiving() as receiver:
        receiver.answers_get = True
        receiver.says(status, body, Location="http://127.0.0.1:9/")
        mirror = create_mirror(service, url=receiver.url.removesuffix("/hook"), experiment="x", token="secret-token")
        job = started(service)
        copy_due(service)
        shown = mirrored(service, mirror, job)
        assert (shown["state"], f" {status} " in f" {shown['error']} ") == (state, True), shown["error"]
        assert "secret-token" not in shown["error"]
        assert all(got.headers["Authorization"] == "Bearer secret-token" for got in receiver.got)


def test_an_answer_without_end_takes_bounded_memory(service: Served) -> None:
    with receiving() as receiver:
        receiver.answers_get = True
        receiver.says(200, b"x" * (rest_client.READ_BYTES + 1000))
        mirror = create_mirror(service, url=receiver.url.removesuffix("/hook"))
        job = started(service)
        copy_due(service)
        assert "is longer than" in mirrored(service, mirror, job)["error"]


def test_what_waited_is_copied_once_the_address_is_right(service: Served) -> None:
    mirror = create_mirror(service, url="http://127.0.0.1:9")
    job = started(service)
    copy_due(service)
    with receiving() as receiver:
        receiver.answers_get = True
        receiver.says(503)
        answer = service.client.patch(f"/v1/mirrors/{mirror['id']}", json={"url": receiver.url.removesuffix("/hook")})
        assert answer.status_code == 200
        assert copy_due(service) == 1, "at once"
        assert " 503 " in mirrored(service, mirror, job)["error"]
