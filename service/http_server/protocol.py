"""uvicorn's HTTP/1.1 protocol with bounds on what a client may send, and how slowly, before it is heard."""

from __future__ import annotations

import array
import asyncio
import fcntl
import http
import json
import re
import socket
import termios
import time
import uuid
from collections.abc import Callable
from typing import Any, cast
from weakref import WeakKeyDictionary

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.cors import headers_for as cors_headers
from service.early_refusals import STATE, EarlyRefusals
from service.errors import MEDIA_TYPE, HttpProblem
from service.http_server.connections import ConnectionTable, address_of
from service.http_server.event_loop import ServerEventLoop
from service.http_server.limits import (
    FRAMING_BYTES,
    HEALTH_PATHS,
    HEALTH_SECONDS,
    LINGER_SECONDS,
    MAX_FRAMING_RATIO,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_PIPELINED,
    MAX_TRAILER_BYTES,
    MAX_URL_BYTES,
    STALLED_SECONDS,
    connection_limits,
)
from service.monitoring.instrumentation import METHODS, NO_ROUTE, request_id_of
from service.monitoring.request_metrics import REQUESTS
from service.proxy_headers import without_root_path
from service.security_headers import PROBLEM_HEADERS

HEAD_SLICE = 8 << 10
"""Bytes of an unfinished head that the parser is given at once; it holds no more than these beyond the limit."""
SMALL_BODY = re.compile(rb"[0-9]{1,5}")
"""Content-Length of a body that is read and dropped, so that the connection stays usable."""
UNUSUAL = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"origin"})
"""Headers whose requests the application refuses: their bodies, or what a browser must be told, need more."""
_TABLES: WeakKeyDictionary[ServerState, ConnectionTable] = WeakKeyDictionary()


class RequestRefusedError(Exception):
    """Ends the parsing of a request that has been refused."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. Refuses what is too much, too slow or no HTTP, with a problem where an answer can be sent."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        if server_state not in _TABLES:
            _TABLES[server_state] = ConnectionTable(connection_limits())
        self.table = _TABLES[server_state]
        self.address = ""
        self._running: RequestResponseCycle | None = None
        """The request that is being answered; `cycle` is the last one that was received."""
        self._restriction: HttpProblem | None = None
        self._refused = False
        self._deadline: float | None = None
        self._is_new = True
        """What the client may have sent already has not been read."""
        self._begun = False
        """Some bytes of the next head have come."""
        self._in_head = True
        """Between two requests, or within the head of one."""
        self._fed = self._head_bytes = self._head_count = self._trailer_bytes = 0
        self._wire_bytes = self._body_bytes = 0
        self._buffered, self._buffered_since = 0, 0.0
        self._early: EarlyRefusals | None = app_state.get(STATE)
        self._answered_early = False
        """The request that is being received has its answer, and the application never sees it."""
        self._descriptor = -1
        self._is_deferred = False
        """Its last request was refused by the head: while there is too much to do, others are read before it."""

    # what the connection table asks

    def is_idle(self) -> bool:
        """Whether no request is being answered, and what the client has sent would have been read by now."""
        return not self._is_new and not self._is_answering()

    def _is_answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _on_read(self) -> None:
        self._is_new = False

    def restrict(self, problem: HttpProblem) -> None:
        """Answer health checks only, and these soon."""
        self._restriction = problem
        self._deadline = time.monotonic() + HEALTH_SECONDS

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()

    def check(self, now: float) -> None:
        """Close the connection when the client has not sent a head, or taken its response, in time."""
        buffered = self.transport.get_write_buffer_size()
        waits_for_client = buffered > 0 or self.transport.is_closing()
        if not waits_for_client or buffered < self._buffered or not self._buffered_since:
            self._buffered_since = now if waits_for_client else 0.0
        elif now - self._buffered_since > STALLED_SECONDS:
            self.table.refused("response_not_taken")
            self.transport.abort()
            return
        self._buffered = buffered
        if self._deadline is not None and now >= self._deadline:
            self._on_deadline()

    def _on_deadline(self) -> None:
        if not self._refused and self._in_head and not self._begun and self._has_unread():
            return  # the client is not late, the service is
        self._deadline = None
        if self._refused:
            self.transport.abort()
        elif not self._in_head or not self._begun:
            # the rest of a body whose response was sent long ago, or a client that has said nothing at all
            self.table.refused("idle" if self._in_head else "body_not_sent")
            self.transport.close()
        else:
            seconds = self.table.limits.head_seconds
            detail = f"The head of the request was not complete after {seconds:g} s. Send it at once."
            self._refuse(HttpProblem(408, "head_too_slow", detail))

    # connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connected: socket.socket | None = transport.get_extra_info("socket")
        self._descriptor = -1 if connected is None else connected.fileno()
        self.address = address_of(self.client)
        self._deadline = time.monotonic() + self.table.limits.head_seconds
        self.table.add(self)
        # the socket is watched from the next turn on, and in that turn callbacks come before what it reads
        self.loop.call_soon(self.loop.call_soon, self._on_read)

    def connection_lost(self, exc: Exception | None) -> None:
        self.table.discard(self)
        self._defer(deferred=False)
        super().connection_lost(exc)
        if self._running is not None:
            self._hang_up(self._running)  # with pipelined requests `cycle` is another one
        self.pipeline.clear()

    @staticmethod
    def _hang_up(cycle: RequestResponseCycle) -> None:
        """Tell the application that nobody waits for this response."""
        if not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        view, offset = memoryview(data), 0
        if not self._refused and self._in_head and not self._begun:
            self._begin_head()
        try:
            while offset < len(data) and not self._refused and not self.transport.is_closing():
                size = HEAD_SLICE if self._in_head else len(data) - offset
                self._feed(view[offset : offset + size])
                offset += size
        except RequestRefusedError:
            return
        except httptools.HttpParserUpgrade:
            return  # no other protocol is spoken: the request was answered as HTTP/1.1
        except httptools.HttpParserError as error:
            if not self._refused:
                reason = str(error.__context__ or error) or "it cannot be parsed"
                self._refuse(HttpProblem(400, "bad_http", f"This is not a valid HTTP/1.1 request: {reason}."))

    def _feed(self, data: memoryview) -> None:
        was_in_head = self._in_head
        if not was_in_head:
            self._wire_bytes += len(data)
        self.parser.feed_data(data)
        if self._in_head and was_in_head:
            self._fed += len(data)
            if self._fed > MAX_HEAD_BYTES + HEAD_SLICE:
                # a name or a value without an end, or blank lines: no callback has seen them
                self._refuse(_head_too_large())
        elif not self._in_head and self._wire_bytes > MAX_FRAMING_RATIO * self._body_bytes + FRAMING_BYTES:
            detail = "The chunks of the body are too small, or have extensions. Send chunks of at least 16 bytes."
            self._refuse(HttpProblem(400, "bad_chunks", detail))

    def _begin_head(self) -> None:
        self._begun = True
        if self._deadline is None:
            self._deadline = time.monotonic() + self.table.limits.head_seconds

    def _defer(self, *, deferred: bool) -> None:
        if deferred != self._is_deferred and isinstance(self.loop, ServerEventLoop):
            self._is_deferred = deferred
            self.loop.defer(self._descriptor, deferred=deferred)

    def _has_unread(self) -> bool:
        """Whether the client has sent something that the event loop has not read yet."""
        if self._descriptor < 0 or self.transport.is_closing():
            return False
        unread = array.array("i", [0])
        try:
            fcntl.ioctl(self._descriptor, termios.FIONREAD, unread)
        except OSError:
            return False
        return unread[0] > 0

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that nothing was sent on for a while, whatever the time until it is read."""
        if not self._has_unread():
            super().timeout_keep_alive_handler()

    # parser

    def on_message_begin(self) -> None:
        self._fed = self._head_bytes = self._head_count = self._trailer_bytes = 0
        self._in_head = True
        self._begin_head()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        if self._head_bytes > MAX_URL_BYTES:
            self._stop(
                HttpProblem(414, "url_too_long", f"The address has more than {MAX_URL_BYTES} bytes. Shorten it.")
            )
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            # a trailer comes after the application has begun: it may not change what was decided by the headers
            self._trailer_bytes += len(name) + len(value) + 4
            if self._trailer_bytes > MAX_TRAILER_BYTES:
                self._stop(_head_too_large())
            return
        self._head_bytes += len(name) + len(value) + 4
        self._head_count += 1
        if self._head_bytes > MAX_HEAD_BYTES or self._head_count > MAX_HEADERS:
            self._stop(_head_too_large())
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = self._begun = False
        self._deadline = None
        self._wire_bytes = self._body_bytes = 0
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            self._stop(HttpProblem(400, "bad_http", "This is not a valid HTTP/1.1 request: another version."))
        path = without_root_path(self.url.partition(b"?")[0].decode("latin-1"), self._root_path())
        is_health = path in HEALTH_PATHS
        if self._restriction is not None and not is_health:
            self._stop(self._restriction)
        client = self.table.limits.trusted.client(self.client[0], self.headers) if self.client else None
        if client is not None:
            problem = self.table.move(self, address_of((client, 0)))
            if problem is not None and not is_health:
                self._stop(problem)
        if len(self.pipeline) >= MAX_PIPELINED:
            self.table.refused("pipelined")
            self._refused = True
            self.transport.close()
            raise RequestRefusedError
        refused = self._early is not None and self._refuse_early(self._early, path)
        self._defer(deferred=refused)
        if refused:
            return
        super().on_headers_complete()

    def _refuse_early(self, early: EarlyRefusals, path: str) -> bool:
        """Refuse a usual request by its head, if it will be refused, and keep the connection open."""
        if self.pipeline or self._is_answering() or self.transport.get_write_buffer_size():
            return False
        headers = dict(self.headers)
        size = headers.get(b"content-length", b"0")
        if not SMALL_BODY.fullmatch(size) or not UNUSUAL.isdisjoint(headers) or self.parser.get_method() == b"HEAD":
            return False
        problem = early.problem(headers.get(b"authorization", b""), path, self.url.partition(b"?")[2])
        if problem is None:
            return False
        method = self.parser.get_method().decode("latin-1")
        REQUESTS.labels(method if method in METHODS else "OTHER", NO_ROUTE, f"{problem.status // 100}xx").inc()
        self.table.note(problem.code)
        if not self.parser.should_keep_alive():
            self._refused = True
            self._send_and_close(problem)
            raise RequestRefusedError
        self._answered_early = True
        self._deadline = time.monotonic() + LINGER_SECONDS  # for what there is of a body
        request_id = request_id_of({"headers": self.headers})
        self.transport.write(problem_response(problem, self._root_path(), request_id, keep_alive=True))
        return True

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if not self._answered_early:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        if self._answered_early:
            self._answered_early, self._deadline = False, None
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
            return
        if not self._refused and self._deadline is not None:
            # the rest of a body whose response was sent before: the connection is one that is kept open from now on
            self._deadline = time.monotonic() + self.timeout_keep_alive
        super().on_message_complete()

    # responses

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        cycle.transport = cast(asyncio.Transport, LingeringTransport(self.transport, self.close_gently))
        super()._start_asgi_task(cycle, app)

    def close_gently(self) -> None:
        """Close, but read and drop what the client still sends for a while: a reset could overtake the response."""
        if self._in_head or self.transport.is_closing() or not self.transport.can_write_eof():
            self.transport.close()
        elif not self._refused:
            self._refused = True
            self.flow.resume_reading()
            self._deadline = time.monotonic() + LINGER_SECONDS
            self.transport.write_eof()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_answering():
            self.table.move(self, address_of(self.client))
        if self._restriction is not None:
            self.transport.close()
        elif not self._in_head and self.cycle.response_complete:
            # answered before the body had come: the rest is read and dropped, for a while
            self._unset_keepalive_if_required()
            self._deadline = time.monotonic() + LINGER_SECONDS

    def send_400_response(self, msg: str) -> None:
        self._refuse(HttpProblem(400, "bad_http", msg))

    def _root_path(self) -> str:
        """Return the path below which this client reaches the service."""
        limits = self.table.limits
        return limits.root_path or (limits.trusted.prefix(self.client[0], self.headers or ()) if self.client else "")

    def _stop(self, problem: HttpProblem) -> None:
        """Refuse from within a callback of the parser. Raises RequestRefusedError."""
        self._refuse(problem)
        raise RequestRefusedError

    def _refuse(self, problem: HttpProblem) -> None:
        """Answer with the problem, unless another response is on its way, and close."""
        self._refused = True
        self.table.refused(problem.code)
        if self.transport.is_closing():
            return
        if self.pipeline or (self._running is not None and self._running.response_started and self._is_answering()):
            self.transport.close()
            return
        if self._running is not None:
            self._hang_up(self._running)
        origin = next((value.decode("latin-1") for name, value in self.headers or () if name == b"origin"), None)
        problem.headers.update(cors_headers(origin, self.table.limits.cors_origins))
        self._send_and_close(problem)

    def _send_and_close(self, problem: HttpProblem) -> None:
        self.transport.write(problem_response(problem, self._root_path()))
        # as in `close_gently`
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._deadline = time.monotonic() + LINGER_SECONDS
        else:
            self.transport.close()


class LingeringTransport:
    """The transport of a connection as one of its requests sees it: closing it is left to the protocol."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport, self.close = transport, close

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _head_too_large() -> HttpProblem:
    detail = f"The head of a request has at most {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers. Send fewer."
    return HttpProblem(431, "head_too_large", detail)


def problem_response(
    problem: HttpProblem, root_path: str = "", request_id: str | None = None, *, keep_alive: bool = False
) -> bytes:
    """Return a whole HTTP/1.1 response that tells a problem, and closes the connection unless it is kept alive."""
    request_id = request_id or uuid.uuid4().hex[:16]
    body = json.dumps(problem.body(request_id, root_path)).encode()
    headers = {
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "X-Request-Id": request_id,
        **dict(PROBLEM_HEADERS),
        **problem.headers,
    }
    if not keep_alive:
        headers["Connection"] = "close"
    lines = [f"HTTP/1.1 {problem.status} {http.HTTPStatus(problem.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
