"""The embedded broker: a private socket, no TCP port, messages by Celery's own library."""

from __future__ import annotations

import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection

from client import embedded_redis
from client.home import RefusedError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "redis.sock"
    process = subprocess.Popen(embedded_redis.server_command(path), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not embedded_redis.answers(path):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield path
    process.terminate()
    process.wait(timeout=20)


def test_a_message_travels_over_the_private_socket(server: Path) -> None:
    assert stat.S_IMODE(server.stat().st_mode) == 0o700
    with Connection(f"redis+socket://{server}?virtual_host=0") as connection:
        queue = connection.SimpleQueue("bell")
        queue.put({"ring": 1})
        message = queue.get(timeout=10)
        assert message.payload == {"ring": 1}
        message.ack()
        queue.close()


def test_nobody_answers_where_no_server_listens(tmp_path: Path) -> None:
    assert not embedded_redis.answers(tmp_path / "redis.sock")


def test_a_machine_without_any_server_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_redis.shutil, "which", lambda _name: None)
    monkeypatch.setattr(embedded_redis, "find_spec", lambda _name: None)
    with pytest.raises(RefusedError) as refused:
        embedded_redis.server_binary()
    assert "redis-server" in str(refused.value)
    assert "TRAINKIT_BROKER_URL" in refused.value.hint
