"""A broker that is away, hangs or answers nonsense costs no job and no error."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import doorbell
from service.doorbell import Doorbell
from tests.support.api import Served


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []
        stop = threading.Event()

        def take() -> None:
            server.settimeout(0.1)
            while not stop.is_set():
                try:
                    taken.append(server.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=take)
        thread.start()
        yield server.getsockname()[1]
        stop.set()
        thread.join()
        for connection in taken:
            connection.close()


def test_nobody_there(tmp_path: Path) -> None:
    bell = Doorbell(f"redis+socket://{tmp_path}/nobody.sock")
    assert bell.ring("train") is False
    assert bell.reachable() is False


def test_somebody_who_never_answers(silent_port: int) -> None:
    bell = Doorbell(f"redis://127.0.0.1:{silent_port}/0")
    assert bell.ring("train") is False


def test_after_a_failure_nobody_waits_again_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bell = Doorbell(f"redis+socket://{tmp_path}/nobody.sock")
    queues: list[str] = []

    def send(*args: object, **options: object) -> None:
        queues.append(str(options["queue"]))
        if len(queues) == 1:
            raise ConnectionError("away")

    monkeypatch.setattr(bell._celery, "send_task", send)
    assert (bell.ring("train"), bell.ring("train")) == (False, False)
    assert queues == ["train"]
    monkeypatch.setattr(doorbell.time, "monotonic", lambda: bell._resting_until + 1)
    assert bell.ring("data") is True
    assert queues == ["train", "data"]


def test_submitting_works_without_a_broker(service: Served) -> None:
    assert service.job(service.submit())["state"] == "queued"
    ready = service.client.get("/readyz")
    assert (ready.status_code, ready.json()["status"], ready.json()["broker"]) == (200, "ready", "away")
