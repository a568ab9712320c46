"""A webhook receiver: a real HTTP server on loopback that keeps what it gets and answers as it is told."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import standardwebhooks
import svix.webhooks
from sqlalchemy import select, update

from service.outbox.tables import WebhookCircuit, WebhookDelivery
from service.secret_box import SecretBox
from service.webhooks.sender import Sender
from service.webhooks.target_policy import TargetPolicy
from service.webhooks.transport import Channels
from tests.support.api import Served


@dataclass(frozen=True, slots=True)
class Got:
    """A request as it came."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def payload(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.body)
        return shown

    def verify(self, secret: str) -> dict[str, Any]:
        """Both libraries must accept it; returns the payload."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        svix.webhooks.Webhook(secret).verify(self.body, headers)
        payload: dict[str, Any] = standardwebhooks.Webhook(secret).verify(self.body, headers)
        return payload


Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Receiver:
    """`answer` may be changed at any time; a function of the request decides anew for each."""

    url: str = ""
    got: list[Got] = field(default_factory=list)
    answer: Callable[[Got], Answer] = lambda _: (204, {}, b"")
    answers_get: bool = False
    """Whether a GET gets that answer as well."""
    wrap: Callable[[ssl.SSLContext], None] = lambda _: None
    """From now on it speaks TLS."""

    def says(self, status: int, body: bytes = b"", **headers: str) -> None:
        """The same answer for all."""
        self.answer = lambda _: (status, headers, body)

    def wait_for(self, count: int, seconds: float = 60) -> list[Got]:
        """Wait until so many have come; fails after a time that is a safety net only."""
        end = time.monotonic() + seconds
        while len(self.got) < count:
            assert time.monotonic() < end, f"{len(self.got)} of {count} came"
            time.sleep(0.01)
        return self.got


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that listens."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got = Got(self.path, dict(self.headers), body)
            receiver.got.append(got)
            status, headers, answer = receiver.answer(got)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def do_GET(self) -> None:
            receiver.got.append(Got(self.path, dict(self.headers), b"GET"))
            status, headers, answer = receiver.answer(receiver.got[-1]) if receiver.answers_get else (200, {}, b"")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        tls: ssl.SSLContext | None = None

        def finish_request(self, request: Any, client_address: Any) -> None:
            if self.tls is not None:
                request = self.tls.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)

        def handle_error(self, *_: Any) -> None:
            pass  # who sends may hang up

    server = Server(("127.0.0.1", 0), Handler)
    receiver.wrap = lambda context: setattr(server, "tls", context)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()


def hook(service: Served, url: str, **changes: Any) -> dict[str, Any]:
    """Make a webhook; its answer, secret and all."""
    answer = service.client.post("/v1/webhooks", json={"url": url, **changes})
    assert answer.status_code == 201, answer.text
    webhook: dict[str, Any] = answer.json()
    return webhook


def sender(service: Served) -> Sender:
    """A new sender: what it knows it has from the database."""
    settings = service.context.settings
    return Sender(service.sessions, TargetPolicy(("127.0.0.1",)), SecretBox(settings), Channels.of(settings))


def send_due(service: Served) -> int:
    """A new sender sends all that is due; returns how many attempts it made."""
    one, begun = sender(service), 0
    while now := one.start_due():
        begun += now
        assert one.drain(60)
    return begun


def deliveries(service: Served, webhook: str, query: str = "") -> list[dict[str, Any]]:
    """The webhook's deliveries, oldest first."""
    answer = service.client.get(f"/v1/webhooks/{webhook}/deliveries?limit=200{query}")
    assert answer.status_code == 200, answer.text
    return list(reversed(answer.json()["data"]))


def detail(service: Served, delivery: dict[str, Any]) -> dict[str, Any]:
    """All of one delivery."""
    answer = service.client.get(f"/v1/webhooks/{delivery['webhook']}/deliveries/{delivery['id']}")
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def let_pass(service: Served) -> float:
    """Move every stored time of what waits back, so that it is due; returns by how many seconds at most."""
    moved = 0.0
    with service.sessions.begin() as session:
        from service.database import db_time

        at = db_time(session)
        session.execute(update(WebhookCircuit).where(WebhookCircuit.open_until > at).values(open_until=at))
        for row in session.scalars(select(WebhookDelivery).where(WebhookDelivery.state == "pending")):
            if row.next_attempt_at is None or row.next_attempt_at <= at:
                continue
            by = row.next_attempt_at - at
            row.next_attempt_at = at
            row.first_attempt_at = row.first_attempt_at and row.first_attempt_at - by
            moved = max(moved, by.total_seconds())
    return moved


def forget_claims(service: Served) -> None:
    """The time of every claim is over."""
    with service.sessions.begin() as session:
        session.execute(update(WebhookDelivery).values(claimed_until=None))
