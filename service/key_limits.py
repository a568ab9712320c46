"""How many requests one API key may have in work at a time, and how many streams that wait."""

from __future__ import annotations

from collections import Counter

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import HttpProblem, answer
from service.monitoring.instrumentation import is_long_poll

STREAM = "/stream"


class KeyLimits:
    """Refuses what is beyond the limits of a key with 429, so that nobody takes all threads, memory or connections."""

    def __init__(self, app: ASGIApp, max_requests: int, max_streams: int) -> None:
        self.app = app
        self._max_requests, self._max_streams = max_requests, max_streams
        self._requests: Counter[str] = Counter()
        self._streams: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal = scope.get("state", {}).get("principal")
        if scope["type"] != "http" or principal is None:
            await self.app(scope, receive, send)
            return
        waits = scope["path"].endswith(STREAM) or is_long_poll(scope["query_string"])
        counts, limit = (self._streams, self._max_streams) if waits else (self._requests, self._max_requests)
        key = principal.actor
        if limit and counts[key] >= limit:
            problem = too_many_streams(limit) if waits else too_many_requests(limit)
            await answer(problem, scope)(scope, receive, send)
            return
        counts[key] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            counts[key] -= 1
            if not counts[key]:
                del counts[key]


def too_many_requests(limit: int) -> HttpProblem:
    """429: wait for some answers first."""
    detail = f"This key has {limit} requests in work already, which is its limit. Wait for some of the answers."
    return HttpProblem(429, "too_many_requests", detail, headers={"Retry-After": "1"})


def too_many_streams(limit: int) -> HttpProblem:
    """429: close some streams first."""
    detail = f"This key has {limit} streams and long polls open already, which is its limit. Close some of them."
    return HttpProblem(429, "too_many_streams", detail, headers={"Retry-After": "5"})
