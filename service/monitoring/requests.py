"""The outermost of our middleware: names every request, counts it, writes one line about it, answers its defects."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Any
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import answer, defect
from service.logging import bound
from service.monitoring.request_metrics import IN_PROGRESS, RECEIVED_BYTES, REQUEST_SECONDS, REQUESTS, WAITING

log = logging.getLogger("service.access")
SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NO_ROUTE = "(none)"
"""Answered before a route was found: no key, no such address, a body that is too large."""
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked by machines every few seconds: their lines are of level debug."""


class Observation:
    """Around the whole application, so that a request which is refused at the door is seen too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        seen = Seen(scope)
        scope.setdefault("state", {})["request_id"] = seen.request_id

        async def counted() -> Message:
            message = await receive()
            seen.received += len(message.get("body", b""))
            return message

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", seen.request_id.encode())]
                seen.starts(message)
            await send(message)

        with bound(request_id=seen.request_id):
            IN_PROGRESS.inc()
            try:
                await self.app(scope, counted, named)
            except Exception:
                log.exception("unexpected error at %s %s", scope["method"], seen.route)
                if seen.status:
                    raise  # half an answer is on its way: only closing the connection says that it is not whole
                await answer(defect(), scope)(scope, receive, named)
            finally:
                IN_PROGRESS.dec()
                seen.ends()


class Seen:
    """One request, from its first byte to its last."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.request_id = request_id_of(scope)
        self.received = 0
        self.status = 0
        self._begun = time.perf_counter()
        self._waits = "long_poll" if is_long_poll(scope["query_string"]) else None
        if self._waits:
            WAITING.labels(self._waits).inc()

    @property
    def route(self) -> str:
        """The template of the route, known once the router has been asked."""
        path = getattr(self.scope.get("route"), "path", None)
        if path is None and "endpoint" in self.scope:
            # a folder of files, else a plain route, whose template is its path
            path = self.scope.get("root_path") or (None if self.scope["path_params"] else self.scope["path"])
        return path or NO_ROUTE

    def starts(self, message: Message) -> None:
        """The answer begins."""
        self.status = message["status"]
        kind = next((value for name, value in message["headers"] if name.lower() == b"content-type"), b"")
        if kind.startswith(b"text/event-stream") and self._waits is None:
            self._waits = "stream"
            WAITING.labels(self._waits).inc()

    def ends(self) -> None:
        """Count it, and write its line."""
        seconds = time.perf_counter() - self._begun
        route = self.route
        method = self.scope["method"] if self.scope["method"] in METHODS else "OTHER"
        status = f"{self.status // 100}xx" if self.status else "none"
        REQUESTS.labels(method, route, status).inc()
        if self.received:
            RECEIVED_BYTES.labels(route).inc(self.received)
        if self._waits:
            WAITING.labels(self._waits).dec()
        else:
            REQUEST_SECONDS.labels(method, route).observe(seconds)
        self._write(method, route, round(seconds * 1000, 1))

    def _write(self, method: str, route: str, milliseconds: float) -> None:
        level = logging.DEBUG if route in QUIET and self.status < 400 else logging.INFO
        if not log.isEnabledFor(level):
            return
        about: dict[str, Any] = {"method": method, "route": route, "status": self.status, "ms": milliseconds}
        line = f"{method} {route} {self.status} {milliseconds} ms"
        principal = self.scope["state"].get("principal")
        if principal is not None:
            about |= {"key": principal.key_id, "project": principal.project_id}
            line += f" key={principal.key_id} project={principal.project_id}"
        log.log(level, "%s", line, extra=about)


def request_id_of(scope: Scope) -> str:
    """The client's own `X-Request-Id` when it is sane, else a new one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
    return given if SANE_ID.fullmatch(given) else uuid.uuid4().hex[:16]


def is_long_poll(query: bytes) -> bool:
    """Whether the address says how long the answer may wait."""
    if b"wait=" not in query:
        return False
    said = parse_qs(query.decode("latin-1")).get("wait", ["0"])[-1]
    try:
        return float(said) > 0
    except ValueError:
        return False
