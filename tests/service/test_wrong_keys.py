"""Guessing keys: it soon costs the guesser's time and not the database's, and locks nobody out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from sqlalchemy import update

from service import auth, wrong_keys
from service.database import db_now
from service.keys.tables import ApiKey
from service.settings import Settings
from tests.support.api import Served, assert_problem

SQLITE = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, max_wrong_keys_per_minute=5)


@pytest.fixture(autouse=True)
def no_key_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "KEEP_SECONDS", 0.0)


def guess(service: Served, number: int, address: str = "192.0.2.1") -> Response:
    client = TestClient(service.app, client=(address, 50_000))
    return client.get("/v1/jobs", headers={"Authorization": f"Bearer tk_{number:08d}_{'x' * 40}"})


def test_after_some_wrong_keys_the_database_is_left_alone(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [guess(service, number).status_code for number in range(5)] == [401] * 5
    reads = 0

    def count(*_: object) -> None:
        nonlocal reads
        reads += 1

    monkeypatch.setattr(auth, "authenticate", count)
    for number in range(20):
        refused = guess(service, number)
        assert_problem(refused, 429, "too_many_wrong_keys")
        assert 1 <= int(refused.headers["retry-after"]) <= 12
    assert reads == 0
    assert guess(service, 1, "192.0.2.2").status_code == 401, "each address has its own"
    assert reads == 1


@pytest.mark.postgresql
def test_a_right_key_is_let_in_from_the_same_address(service: Served) -> None:
    for number in range(20):
        guess(service, number)
    client = TestClient(service.app, client=("192.0.2.1", 50_000))
    for project in ("default", "new"):
        key = service.key(project)
        wrong_keys_of(service)._read_at = -1e9  # made a moment ago: as if the hashes were due
        assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    assert guess(service, 1).status_code == 429
    revoked = service.key("default")
    with service.sessions.begin() as session:
        session.execute(update(ApiKey).where(ApiKey.id == revoked.split("_")[1]).values(revoked_at=db_now()))
    wrong_keys_of(service)._read_at = -1e9
    assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {revoked}"}).status_code == 429


def wrong_keys_of(service: Served) -> wrong_keys.WrongKeys:
    layer = service.app.middleware_stack
    while not isinstance(layer, auth.Authentication):
        layer = layer.app  # type: ignore[union-attr]
    return layer._wrong_keys


@SQLITE
def test_guesses_from_everywhere_are_limited_together(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrong_keys, "ALL_ADDRESSES", 2)
    answers = [guess(service, number, f"192.0.2.{number}").status_code for number in range(30)]
    assert answers == [401] * 10 + [429] * 20


@SQLITE
def test_addresses_of_one_ipv6_network_count_together(service: Served) -> None:
    answers = [guess(service, number, f"2001:db8::{number}").status_code for number in range(10)]
    assert answers == [401] * 5 + [429] * 5


@SQLITE
def test_no_key_and_a_malformed_one_cost_no_guess(service: Served) -> None:
    client = TestClient(service.app, client=("192.0.2.1", 50_000))
    for _ in range(20):
        assert client.get("/v1/jobs").status_code == 401
        assert client.get("/v1/jobs", headers={"Authorization": "Bearer tk_x"}).status_code == 401
    assert guess(service, 1).status_code == 401


@SQLITE
def test_the_hashes_are_not_read_for_every_guess(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    monkeypatch.setattr(wrong_keys, "hashes_in_use", lambda session: reads.append(session) or frozenset())
    for number in range(50):
        guess(service, number)
    assert len(reads) == 1
