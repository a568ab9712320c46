"""An object of S3 is copied by a data worker, from a real S3 server on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer

from service.datasets.service import DatasetMetadata, register_source
from service.datasets.tables import DatasetVersion
from tests.support.worker_context import Place, make_place
from worker import intake, s3, shutdown

BODY = "\n".join(["a,b,label", *(f"{n % 7},{n % 5},{'yes' if n % 7 > 3 else 'no'}" for n in range(120))]).encode()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    address = f"http://{host}:{port}"
    httpx.put(f"{address}/mine")
    yield address
    moto.stop()


@pytest.fixture(autouse=True)
def cloud(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ACCESS_KEY_ID": "x",
        "SECRET_ACCESS_KEY": "y",
        "REGION": "us-east-1",
        "ENDPOINT_URL": server,
        "ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)


@pytest.fixture
def place(migrated_url: str, tmp_path: Path) -> Place:
    return limited(make_place(migrated_url, tmp_path))


def limited(place: Place, **changes: int) -> Place:
    settings = replace(place.context.settings, s3_buckets=("mine",), **changes)
    return Place(replace(place.context, settings=settings), replace(place.service, settings=settings), place.who)


def fetched(place: Place, key: str, target: str | None = None) -> DatasetVersion:
    registered = register_source(place.service, place.who, f"s3://mine/{key}", DatasetMetadata("", target=target))
    assert intake.claim_and_check(place.context)
    assert list((place.context.storage.root / "incoming").glob("*")) == []
    with place.context.sessions() as session:
        return session.get_one(DatasetVersion, registered.id)


def test_an_object_becomes_a_ready_dataset(place: Place, server: str) -> None:
    httpx.put(f"{server}/mine/in/a%20table.csv", content=BODY)
    dataset = fetched(place, "in/a table.csv", "label")
    assert (dataset.state, dataset.name, dataset.bytes) == ("validating", "a table", len(BODY))
    assert intake.claim_and_check(place.context)
    with place.context.sessions() as session:
        assert session.get_one(DatasetVersion, dataset.id).state == "ready"
    assert "obstore" not in sys.modules


@pytest.mark.parametrize(
    ("key", "changes", "code"),
    [
        ("missing", {}, "s3_not_found"),
        ("empty", {}, "empty"),
        ("table.csv", {"max_upload_bytes": 10}, "too_large"),
        ("table.csv", {"max_storage_bytes": 10}, "quota_exceeded"),
    ],
)
def test_what_cannot_be_had_says_why(place: Place, server: str, key: str, changes: dict[str, int], code: str) -> None:
    httpx.put(f"{server}/mine/empty", content=b"")
    httpx.put(f"{server}/mine/table.csv", content=BODY)
    dataset = fetched(limited(place, **changes), key)
    assert dataset.error is not None
    assert (dataset.state, dataset.error["code"], bool(dataset.error["hint"])) == ("invalid", code, True)


def test_an_endpoint_that_is_away_is_tried_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(s3, "AWAY_SECONDS", 1.0)
    dataset = fetched(place, "table.csv")
    assert dataset.error is not None
    assert (dataset.error["code"], dataset.error["retryable"]) == ("s3_unreachable", True)


def test_a_stopping_worker_kills_the_copy(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(shutdown, "requested", lambda: True)
    assert fetched(place, "table.csv").state == "uploading"
