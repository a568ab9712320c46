"""The outermost middleware: gives every request an id, counts it, logs one line, and turns defects into a 500."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import answer, defect
from service.logging import bound
from service.monitoring.request_metrics import IN_PROGRESS, RECEIVED_BYTES, REQUEST_SECONDS, REQUESTS, WAITING

log = logging.getLogger("service.access")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NO_ROUTE = "(none)"
"""Answered before a route was matched: no key, unknown path, a body beyond the limit."""
CLIENT_CLOSED = 499
"""Logged for a client that hung up before it had an answer, as nginx does."""
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Polled by machines every few seconds: logged at level debug."""


class RequestInstrumentation:
    """Wraps the whole application, so that requests refused by other middleware are counted too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = RequestRecord(scope)
        scope.setdefault("state", {})["request_id"] = record.request_id

        async def receive_counted() -> Message:
            message = await receive()
            record.received += len(message.get("body", b""))
            if message["type"] == "http.disconnect" and not record.status:
                record.disconnected = True
            return message

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", record.request_id.encode())]
                record.start_response(message)
            await send(message)

        with bound(request_id=record.request_id):
            IN_PROGRESS.inc()
            try:
                await self.app(scope, receive_counted, send_with_id)
            except Exception as error:
                if isinstance(error, ClientDisconnect) and not record.status:
                    return  # nobody is left to answer, and nothing is wrong with the service
                log.exception("unexpected error at %s %s", scope["method"], record.route)
                if record.status:
                    raise  # the response has begun: only closing the connection tells the client that it is incomplete
                await answer(defect(), scope)(scope, receive, send_with_id)
            finally:
                IN_PROGRESS.dec()
                record.finish()


class RequestRecord:
    """What is counted and logged of one request."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.request_id = request_id_of(scope)
        self.received = 0
        self.status = 0
        self.disconnected = False
        self._started = time.perf_counter()
        self._wait_kind = "long_poll" if is_long_poll(scope["query_string"]) else None
        if self._wait_kind:
            WAITING.labels(self._wait_kind).inc()

    @property
    def route(self) -> str:
        """Return the template of the route, known once the router has matched it."""
        path = getattr(self.scope.get("route"), "path", None)
        if path is None and "endpoint" in self.scope:
            # a mounted folder, else a plain route, whose template is its path
            path = self.scope.get("root_path") or (None if self.scope["path_params"] else self.scope["path"])
        return path or NO_ROUTE

    def start_response(self, message: Message) -> None:
        """Note the status, and count an event stream as waiting."""
        self.status = message["status"]
        kind = next((value for name, value in message["headers"] if name.lower() == b"content-type"), b"")
        if kind.startswith(b"text/event-stream") and self._wait_kind is None:
            self._wait_kind = "stream"
            WAITING.labels(self._wait_kind).inc()

    def finish(self) -> None:
        """Count the request and log its line."""
        if self.disconnected:
            self.status = CLIENT_CLOSED  # whatever was answered then, nobody has received it
        seconds = time.perf_counter() - self._started
        route = self.route
        method = self.scope["method"] if self.scope["method"] in METHODS else "OTHER"
        status = f"{self.status // 100}xx" if self.status else "none"
        REQUESTS.labels(method, route, status).inc()
        if self.received:
            RECEIVED_BYTES.labels(route).inc(self.received)
        if self._wait_kind:
            WAITING.labels(self._wait_kind).dec()
        else:
            REQUEST_SECONDS.labels(method, route).observe(seconds)
        self._log(method, route, round(seconds * 1000, 1))

    def _log(self, method: str, route: str, milliseconds: float) -> None:
        level = logging.DEBUG if route in QUIET and self.status < 400 else logging.INFO
        if not log.isEnabledFor(level):
            return
        fields: dict[str, Any] = {"method": method, "route": route, "status": self.status, "ms": milliseconds}
        line = f"{method} {route} {self.status} {milliseconds} ms"
        principal = self.scope["state"].get("principal")
        if principal is not None:
            fields |= {"actor": principal.actor, "project": principal.project_id}
            line += f" actor={principal.actor} project={principal.project_id or '-'}"
        log.log(level, "%s", line, extra=fields)


def request_id_of(scope: Scope) -> str:
    """Return the client's `X-Request-Id` when it is well-formed, else a new one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex[:16]


def is_long_poll(query: bytes) -> bool:
    """Whether the query asks to wait for news (`wait=` above 0)."""
    if b"wait=" not in query:
        return False
    seconds = parse_qs(query.decode("latin-1")).get("wait", ["0"])[-1]
    try:
        return float(seconds) > 0
    except ValueError:
        return False
