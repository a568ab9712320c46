"""Requests a minute over several API processes, with a real Redis between them; and without one."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service import shared_rates
from service.app import create_app
from service.doorbell import Doorbell
from service.rate_limits import RateLimiter
from service.settings import Settings
from service.shared_rates import SharedRates
from tests.support.api import new_key
from tests.support.stack import redis_binary


@contextlib.contextmanager
def running_redis(folder: Path) -> Iterator[str]:
    socket = folder / "redis.sock"
    command = [redis_binary(), "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder)
    try:
        deadline = time.monotonic() + 60
        while not socket.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield f"redis+socket://{socket}?virtual_host=0"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


class Process:
    """The buckets of an API process."""

    def __init__(self, url: str) -> None:
        self.limiter, self.shared = RateLimiter(), SharedRates(Doorbell(url))

    def exchange(self) -> None:
        self.limiter.learn(self.shared.exchange(self.limiter.spent()))


def test_a_key_has_one_limit_with_all_processes(redis_url: str) -> None:
    first, second, third = (Process(redis_url) for _ in range(3))
    for _ in range(3):
        assert first.limiter.take("key:a", 6).allowed
    first.exchange()
    assert second.limiter.take("key:a", 6).remaining == 5, "it has not been told yet"
    assert second.limiter.take("key:b", 6).remaining == 5
    second.exchange()
    assert second.limiter.look("key:a", 6).remaining == 2
    assert second.limiter.look("key:b", 6).remaining == 5, "each key has its own"
    assert second.limiter.take("key:a", 6).remaining == 1
    assert third.limiter.take("key:a", 6).remaining == 5
    third.exchange()
    second.exchange()
    known = second.limiter.look("key:a", 6)
    assert (known.remaining, known.allowed) == (0, False)
    assert 50 < known.full_seconds <= 60
    refused = second.limiter.take("key:a", 6)
    assert (refused.allowed, refused.retry_after) == (False, 10)
    assert second.limiter.spent() == {}, "a refusal costs nothing"


def test_what_is_beyond_the_limit_is_missing_afterwards(redis_url: str) -> None:
    """Two processes that let through all of it, before they told each other, have to wait for twice as long."""
    first, second = Process(redis_url), Process(redis_url)
    for one in (first, second):
        while one.limiter.take("key:c", 6).allowed:
            pass
    first.exchange()
    second.exchange()
    assert first.limiter.look("key:c", 6).retry_after == 10
    assert 60 <= second.limiter.look("key:c", 6).retry_after <= 70


def test_telling_late_takes_no_more_than_telling_at_once(redis_url: str) -> None:
    one = Process(redis_url)
    one.limiter.take("key:d", 60)
    time.sleep(0.2)
    before = one.limiter.look("key:d", 60).full_seconds
    one.exchange()
    assert one.limiter.look("key:d", 60).full_seconds == pytest.approx(before, abs=0.1)


def test_a_bucket_that_is_full_again_is_forgotten(redis_url: str) -> None:
    one = Process(redis_url)
    one.limiter.take("key:e", 6000)
    one.exchange()
    client = Doorbell(redis_url).connection().default_channel.client
    deadline = time.monotonic() + 60
    while client.exists(shared_rates.PREFIX + "key:e"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_more_keys_than_fit_a_call(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_rates, "MAX_NAMES", 7)
    first, second = Process(redis_url), Process(redis_url)
    for one in (first, second):
        for number in range(20):
            assert one.limiter.take(f"key:f{number}", 6).remaining == 5
        one.exchange()
    assert {second.limiter.look(f"key:f{number}", 6).remaining for number in range(20)} == {4}


def test_without_redis_each_process_counts_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Process(f"redis+socket://{tmp_path}/redis.sock?virtual_host=0")
    for remaining in (5, 4):
        assert one.limiter.take("key:a", 6).remaining == remaining
        one.exchange()
    monkeypatch.setattr(shared_rates, "REST_SECONDS", 0.0)
    one.shared._resting_until = 0.0
    with running_redis(tmp_path):
        assert one.limiter.take("key:a", 6).remaining == 3
        one.exchange()
        other = Process(f"redis+socket://{tmp_path}/redis.sock?virtual_host=0")
        other.limiter.take("key:a", 6)
        other.exchange()
        assert other.limiter.look("key:a", 6).remaining == 4, "it goes on with what is taken from now on"
        assert one.limiter.look("key:a", 6).remaining == 3, "what it knows itself stays"
    one.limiter.take("key:a", 6)
    one.exchange()
    assert one.limiter.look("key:a", 6).remaining == 2


def test_another_broker_shares_nothing() -> None:
    one = Process("memory://")
    one.limiter.take("key:a", 6)
    one.exchange()
    assert one.limiter.take("key:a", 6).remaining == 4


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_two_applications_count_one_key_together(settings: Settings, redis_url: str) -> None:
    """What the fields RateLimit say holds for both, and the second one refuses what the first one has let through."""
    settings = replace(settings, broker_url=redis_url, max_requests_per_minute=20)
    apps = [create_app(settings) for _ in range(2)]
    with TestClient(apps[0]) as first, TestClient(apps[1]) as second:
        key = {"Authorization": f"Bearer {new_key(apps[0].state.context.sessions, 'default', 'viewer')}"}
        for _ in range(12):
            assert first.get("/v1/me", headers=key).status_code == 200
        left = [19]
        while left[-1] > 10:
            time.sleep(shared_rates.SHARE_SECONDS)
            answer = second.get("/v1/me", headers=key)
            assert answer.status_code == 200, answer.text
            left.append(int(answer.headers["ratelimit"].split("r=")[1].split(";")[0]))
            assert len(left) < 9, f"the second one knows nothing of the first: {left}"
        while answer.status_code == 200:
            answer = second.get("/v1/me", headers=key)
            left.append(0)
            assert len(left) < 18
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert answer.headers["ratelimit"].startswith('"requests";r=0;')
    for app in apps:
        app.state.context.engine.dispose()
