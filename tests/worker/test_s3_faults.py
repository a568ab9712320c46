"""An S3 endpoint that denies, cuts off, changes the object on the way, or comes back: told, or waited out."""

from __future__ import annotations

import hashlib
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service.datasets.service import DatasetMetadata, register_source
from service.datasets.tables import DatasetVersion
from tests.support.worker_context import Place, copied_place
from worker import intake, s3

BODY = b"a,b,label\n" + b"1,2,x\n3,4,y\n" * 400


@dataclass
class Endpoint:
    """Just so much of S3: HEAD and ranged GET of one object, and a fault on the way."""

    body: bytes = BODY
    tag: str = '"one"'
    fault: Callable[[Endpoint, int], str | None] = lambda *_: None
    gets: int = 0
    port: int = 0
    server: ThreadingHTTPServer | None = field(default=None)

    def start(self) -> None:
        handler = type("Handler", (Handler,), {"endpoint": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    endpoint: Endpoint
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(b"", self.endpoint.body)

    def do_GET(self) -> None:
        endpoint = self.endpoint
        endpoint.gets += 1
        fault = endpoint.fault(endpoint, endpoint.gets)
        expected_tag = self.headers.get("If-Match")
        if fault == "denied":
            self.refuse(403, "AccessDenied")
        elif expected_tag is not None and expected_tag.strip('"') != endpoint.tag.strip('"'):
            self.refuse(412, "PreconditionFailed")
        elif fault == "busy":
            self.refuse(503, "SlowDown")
        else:
            found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            assert found is not None
            start, end = int(found[1]), min(int(found[2]) + 1, len(endpoint.body))
            part = endpoint.body[start:end]
            self.answer(part[: len(part) // 2] if fault == "cut" else part, part, start)

    def answer(self, sent: bytes, announced: bytes, start: int | None = None) -> None:
        self.send_response(200 if start is None else 206)
        self.send_header("Content-Length", str(len(announced)))
        self.send_header("ETag", self.endpoint.tag)
        self.send_header("Last-Modified", "Wed, 21 Oct 2026 07:28:00 GMT")
        if start is not None:
            total = len(self.endpoint.body)
            self.send_header("Content-Range", f"bytes {start}-{start + len(announced) - 1}/{total}")
        self.end_headers()
        self.wfile.write(sent)
        self.close_connection = len(sent) != len(announced)

    def refuse(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    instance = Endpoint()
    instance.start()
    for name, value in {
        "ACCESS_KEY_ID": "x",
        "SECRET_ACCESS_KEY": "y",
        "REGION": "us-east-1",
        "ENDPOINT_URL": f"http://127.0.0.1:{instance.port}",
        "ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr(s3, "PIECE", 1000)
    yield instance
    instance.stop()


@pytest.fixture
def place(migrated_sqlite: Path, tmp_path: Path) -> Place:
    base = copied_place(migrated_sqlite, tmp_path)
    settings = replace(base.context.settings, s3_buckets=("mine",))
    return Place(replace(base.context, settings=settings), replace(base.service, settings=settings), base.who)


def fetched(place: Place) -> DatasetVersion:
    registered = register_source(place.service, place.who, "s3://mine/table.csv", DatasetMetadata("t"))
    assert intake.claim_and_check(place.context)
    assert list((place.context.storage.root / "incoming").glob("*")) == []
    with place.context.sessions() as session:
        return session.get_one(DatasetVersion, registered.id)


def whole(dataset: DatasetVersion) -> bool:
    return (dataset.state, dataset.blob_sha256, dataset.bytes) == (
        "validating",
        hashlib.sha256(BODY).hexdigest(),
        len(BODY),
    )


def test_access_denied_is_told_and_not_tried_again(place: Place, endpoint: Endpoint) -> None:
    endpoint.fault = lambda _, number: "denied" if number > 2 else None
    dataset = fetched(place)
    assert dataset.error is not None
    assert (dataset.state, dataset.error["code"], dataset.error["retryable"], endpoint.gets) == (
        "invalid",
        "s3_denied",
        False,
        3,
    )
    assert "AWS_ACCESS_KEY_ID" in dataset.error["hint"]


@pytest.mark.parametrize("fault", ["cut", "busy"])
def test_a_cut_or_refused_piece_is_read_again(place: Place, endpoint: Endpoint, fault: str) -> None:
    endpoint.fault = lambda _, number: fault if number in (2, 3) else None
    assert whole(fetched(place))
    assert endpoint.gets == -(-len(BODY) // 1000) + 2


def test_an_object_that_changes_on_the_way_is_not_mixed(place: Place, endpoint: Endpoint) -> None:
    def replaced(endpoint: Endpoint, number: int) -> None:
        if number == 3:
            endpoint.body, endpoint.tag = BODY[::-1], '"two"'

    endpoint.fault = replaced
    dataset = fetched(place)
    assert dataset.error is not None
    assert (dataset.state, dataset.error["code"], dataset.error["retryable"]) == ("invalid", "s3_changed", True)


def test_an_endpoint_that_comes_back_is_waited_for(place: Place, endpoint: Endpoint) -> None:
    def gone(endpoint: Endpoint, number: int) -> str | None:
        if number == 2:
            threading.Thread(target=restart, args=(endpoint,)).start()
            return "cut"
        return None

    def restart(endpoint: Endpoint) -> None:
        endpoint.stop()
        time.sleep(1.5)
        endpoint.start()

    endpoint.fault = gone
    assert whole(fetched(place))


def test_a_worker_without_the_library_says_what_to_install(
    place: Place, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    dataset = fetched(place)
    assert dataset.error is not None
    assert (dataset.state, dataset.error["code"]) == ("invalid", "s3_missing")
    assert "trainkit[s3]" in dataset.error["hint"]
