"""An HTTP server on the loopback interface that answers as a script says, and remembers what it was asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Exchange:
    """A request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """A response; `cut_after` closes the connection after so many bytes of the body, None of no response at all."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


CUT = Reply(cut_after=-1)
"""The connection is closed without an answer."""


@dataclass
class ScriptedServer:
    """Its address, what arrived, and what it answers next."""

    url: str
    replies: list[Reply | Callable[[Exchange], Reply]]
    exchanges: list[Exchange] = field(default_factory=list)

    def next_reply(self, exchange: Exchange) -> Reply:
        self.exchanges.append(exchange)
        if not self.replies:
            return Reply(500, {"detail": "the script has ended", "status": 500, "code": "internal_error"})
        reply = self.replies.pop(0)
        return reply(exchange) if callable(reply) else reply


@contextmanager
def scripted_server(*replies: Reply | Callable[[Exchange], Reply]) -> Iterator[ScriptedServer]:
    """Serve these replies, one for each request."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = script.next_reply(Exchange(self.command, self.path, headers, self.rfile.read(length)))
            if reply is CUT:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            content = reply.content
            self.send_response_only(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: reply.cut_after])
            if reply.cut_after is not None:
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any  # noqa: N815

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing: pytest shows what a test needs."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script = ScriptedServer(f"http://127.0.0.1:{server.server_port}", list(replies))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def problem(status: int, code: str = "refused", **headers: str) -> Reply:
    """A problem document as the service sends it."""
    body = {"type": "about:blank", "title": "No", "status": status, "code": code, "detail": f"It is {code}."}
    return Reply(status, body, {"Content-Type": "application/problem+json", **headers})
