"""Bounds of request bodies: how many bytes, how slowly, how many large ones at once, and only for a key that may."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.auth import check_role
from service.errors import BodyProblem, HttpProblem, answer
from service.load_shedding import leave_work

BODY_BYTES = 256 << 10
"""What a request may send unless its route needs more: a document that a person or a script writes."""
FORM_OVERHEAD = 1 << 20
"""What a multipart form may hold beside the file itself."""
TUS = re.compile(r"/v1/uploads(/[^/]*)?")
DATASETS = "/v1/datasets"
PREDICTIONS = re.compile(r"/v1/models/[^/]*/(predict|evaluate)")
SLOWEST, SLOWEST_LARGE = 1 << 10, 64 << 10
"""Bytes a second. A large body of a prediction holds some of LARGE_BODIES until its last byte."""
LARGE_BODIES = 16
"""Largest bodies of predictions that are in work at once, in files for the worker; one key may have half of them."""
LOWER_LIMIT = "body_limit"
WAIT_SECONDS, LOOK_AGAIN_SECONDS = 5.0, 0.05


class BodyLimits:
    """Refuses bodies beyond the limit of their route, declared or sent; slow ones; and those of a key without the scope."""

    def __init__(self, app: ASGIApp, max_body_bytes: int, max_upload_bytes: int, idle_seconds: float) -> None:
        self.app, self.max_body_bytes, self.max_upload_bytes = app, max_body_bytes, max_upload_bytes
        self._idle_seconds = idle_seconds
        self._large = LargeBodies(LARGE_BODIES * max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        shown, overhead = self._limit(scope)
        limit, declared = shown + overhead, declared_length(scope)
        if declared is not None and declared > limit:
            await answer(too_large(shown), scope)(scope, receive, send)
            return
        is_large = PREDICTIONS.fullmatch(scope["path"]) is not None and (declared is None or declared > BODY_BYTES)
        size = 0
        clock = SpeedClock(SLOWEST_LARGE if is_large else SLOWEST, self._idle_seconds)
        begun = complete = False

        async with AsyncExitStack() as stack:

            async def bounded() -> Message:
                nonlocal size, begun, complete
                if complete:
                    return await receive()
                if not begun:
                    begun = True
                    check_role(scope)  # the route is known by now, and no byte of the body has been asked for
                    if is_large:
                        await stack.enter_async_context(self._large.hold(scope, declared or limit))
                message = await clock.receive(receive)
                size += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if size > limit:
                    raise BodyProblem(too_large(shown))
                lower, problem = scope["state"].get(LOWER_LIMIT, (limit, None))
                if size > lower:
                    raise BodyProblem(problem or too_large(lower))
                return message

            await self.app(scope, bounded, send)

    def _limit(self, scope: Scope) -> tuple[int, int]:
        """(bytes of the body, bytes beyond them of a form)."""
        path = scope["path"]
        if TUS.fullmatch(path) or (path == DATASETS and _media_type(scope) != b"application/json"):
            return self.max_upload_bytes, FORM_OVERHEAD
        if PREDICTIONS.fullmatch(path):
            return self.max_body_bytes, 0
        return min(BODY_BYTES, self.max_body_bytes), 0


def bound_body(scope: Scope, limit: int, problem: HttpProblem | None) -> None:
    """Refuse the rest of this request's body beyond a limit that is lower than that of its route."""
    scope["state"][LOWER_LIMIT] = limit, problem


class SpeedClock:
    """Waits for a body's bytes, no longer than a client may fall behind the lowest speed. Its own time alone counts."""

    def __init__(self, bytes_per_second: int, seconds: float) -> None:
        self._speed, self._most = bytes_per_second, seconds
        self._left = seconds

    async def receive(self, receive: Receive) -> Message:
        """Return the next message. Raises a 408 problem."""
        begin, message = time.monotonic(), None
        with anyio.move_on_after(self._left):
            message = await receive()
        if message is None:
            detail = f"The body came more slowly than {self._speed} bytes a second. Send it faster, or as an upload."
            raise BodyProblem(HttpProblem(408, "body_too_slow", detail, headers={"Connection": "close"}))
        earned = len(message.get("body", b"")) / self._speed
        self._left = min(self._most, self._left - (time.monotonic() - begin) + earned)
        return message


class LargeBodies:
    """Bytes of large bodies that may be in work at once: `limit` in all, half of it for one key."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used: Counter[str] = Counter()

    @asynccontextmanager
    async def hold(self, scope: Scope, size: int) -> AsyncIterator[None]:
        """Wait for bytes, and hold them. Raises a 429 problem when the key has too much, else 503, after some seconds."""
        key = scope["state"]["principal"].actor
        deadline = time.monotonic() + WAIT_SECONDS
        while (problem := self._problem(key, size)) is not None:
            leave_work()
            if time.monotonic() >= deadline:
                raise BodyProblem(problem)
            await anyio.sleep(LOOK_AGAIN_SECONDS)
        self._used[key] += size
        try:
            yield
        finally:
            self._used[key] -= size
            if not self._used[key]:
                del self._used[key]

    def _problem(self, key: str, size: int) -> HttpProblem | None:
        if self._used[key] and self._used[key] + size > self._limit // 2:
            detail = "This key has too many large bodies in work. Send fewer at a time."
            return HttpProblem(429, "too_many_large_bodies", detail, headers={"Retry-After": "5"})
        if self._used.total() and self._used.total() + size > self._limit:
            detail = "The service has too many large bodies in work. Try again later."
            return HttpProblem(503, "too_many_large_bodies", detail, headers={"Retry-After": "5"})
        return None


def declared_length(scope: Scope) -> int | None:
    """Return the Content-Length; 0 for a request without a body, None for one of unknown length."""
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"")
    if length.isdigit():
        return int(length[:20])
    return None if b"transfer-encoding" in headers else 0


def _media_type(scope: Scope) -> bytes:
    value = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    kind: bytes = value.partition(b";")[0].strip().lower()
    return kind


def too_large(limit: int) -> HttpProblem:
    """413 with the limit in it."""
    return HttpProblem(413, "too_large", f"The body may have at most {limit} bytes.", limit_bytes=limit)
