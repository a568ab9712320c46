"""The embedded broker: a private socket, no TCP port, messages by Celery's own library."""

from __future__ import annotations

import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from kombu import Connection
from redis.exceptions import AuthenticationError

from service.cli import embedded_redis
from service.cli.home import RefusedError
from service.doorbell import Doorbell
from trainkit.redis_versions import known_vulnerabilities

PASSWORD = "a" * 48


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "redis.sock"
    command = embedded_redis.server_command(embedded_redis.find_server(), path, PASSWORD)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not embedded_redis.answers(path, PASSWORD):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield path
    process.terminate()
    process.wait(timeout=20)


def test_a_message_travels_over_the_private_socket(server: Path) -> None:
    assert stat.S_IMODE(server.stat().st_mode) == 0o700
    with Connection(f"redis+socket://:{PASSWORD}@{server}?virtual_host=0") as connection:
        queue = connection.SimpleQueue("bell")
        queue.put({"ring": 1})
        message = queue.get(timeout=10)
        assert message.payload == {"ring": 1}
        message.ack()
        queue.close()


def test_nobody_answers_where_no_server_listens(tmp_path: Path) -> None:
    assert not embedded_redis.answers(tmp_path / "redis.sock", PASSWORD)


def test_without_the_password_nothing_is_answered(server: Path) -> None:
    assert not embedded_redis.answers(server, "wrong")
    with pytest.raises(AuthenticationError), redis.Redis(unix_socket_path=str(server)) as client:
        client.ping()
    configuration = server.with_name("redis.conf")
    assert stat.S_IMODE(configuration.stat().st_mode) == 0o600
    assert PASSWORD not in " ".join(embedded_redis.server_command(embedded_redis.find_server(), server, PASSWORD))


def test_the_doorbell_names_the_server(server: Path) -> None:
    named = Doorbell(f"redis+socket://:{PASSWORD}@{server}?virtual_host=0").server()
    chosen = embedded_redis.find_server()
    assert named == (chosen.name.lower(), chosen.version)
    assert Doorbell("redis+socket:///nowhere/redis.sock?virtual_host=0").server() is None


def program(folder: Path, name: str, version: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{version}'\n")
    path.chmod(0o755)


def test_a_server_without_a_known_hole_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's before the wheel's, which is old."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert embedded_redis.find_server().bundled
    program(tmp_path, "redis-server", "Redis server v=7.4.6 sha=00000000:0 malloc=libc bits=64 build=0")
    assert embedded_redis.find_server().summary == f"Redis 7.4.6, {tmp_path}/redis-server"
    program(tmp_path, "valkey-server", "Valkey server v=8.0.1 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=0")
    assert embedded_redis.find_server().name == "Redis", "that version of Valkey has a hole"
    program(tmp_path, "valkey-server", "Valkey server v=8.1.4 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=0")
    assert embedded_redis.find_server().name == "Valkey"
    program(tmp_path, "valkey-server", "Valkey server v=8.1.3 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=0")
    program(tmp_path, "redis-server", "Redis server v=6.0.16 sha=00000000:0 malloc=libc bits=64 build=0")
    chosen = embedded_redis.find_server()
    assert (chosen.name, chosen.vulnerabilities) == ("Valkey", ["CVE-2025-49844"]), "the system's, when all have one"


@pytest.mark.parametrize(
    ("server_name", "version", "holes"),
    [
        ("redis", "6.2.14", 2),
        ("redis", "6.2.16", 1),
        ("redis", "6.2.20", 0),
        ("redis", "7.0.15", 2),
        ("redis", "8.2.2", 0),
        ("redis", "8.4.0", 0),
        ("valkey", "8.0.6", 0),
        ("valkey", "7.2.5", 2),
        ("valkey", "9.0.0", 0),
        ("redis", "of unknown version", 0),
        ("rabbitmq", "4.0.1", 0),
    ],
)
def test_known_holes_of_versions(server_name: str, version: str, holes: int) -> None:
    assert len(known_vulnerabilities(server_name, version)) == holes


def test_a_machine_without_any_server_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_redis.shutil, "which", lambda _name: None)
    monkeypatch.setattr(embedded_redis, "find_spec", lambda _name: None)
    with pytest.raises(RefusedError) as refused:
        embedded_redis.find_server()
    assert "redis-server" in str(refused.value)
    assert "TRAINKIT_BROKER_URL" in refused.value.hint
