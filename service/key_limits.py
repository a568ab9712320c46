"""What one API key may ask of an API process: requests a minute, requests in work at a time, and streams that wait.

All of it is counted in the memory of the process. A count that all processes share would cost a round trip before each
request and end when the broker is away; and what it is to protect, threads and sockets, belongs to a process.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from dataclasses import dataclass, field

from anyio import to_thread
from sqlalchemy.orm import Session, sessionmaker
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.database import reading
from service.errors import DATABASE_AWAY, HttpProblem, Quota, answer
from service.monitoring.instrumentation import is_long_poll
from service.projects.service import Rules, rules, service_rules
from service.rate_limits import MINUTE, RateLimit, RateLimiter
from service.settings import Settings

log = logging.getLogger(__name__)
STREAM = "/stream"
POLICY = "requests"
"""Name of the policy in the fields RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-11)."""
RULES_SECONDS = 10.0
"""How long a project's limits are believed without asking the database again."""
KEPT_PROJECTS = 10_000


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """What the key of a request has used of its limits in this process."""

    requests: RateLimit | None
    """None: no limit."""
    in_work: int
    streams: int


class ProjectRules:
    """The rules of each project, as they were some seconds ago; the service's where there is none, or no database yet."""

    def __init__(self, sessions: sessionmaker[Session], settings: Settings) -> None:
        self._sessions, self._settings = sessions, settings
        self._kept: dict[str, tuple[float, Rules]] = {}

    async def of(self, project_id: str) -> Rules:
        """Return the rules of a project; asks the database at most once in RULES_SECONDS."""
        if not project_id:
            return service_rules(self._settings)
        read_at, kept = self._kept.get(project_id, (-math.inf, None))
        now = time.monotonic()
        if kept is not None and now - read_at < RULES_SECONDS:
            return kept
        if len(self._kept) >= KEPT_PROJECTS:
            self._kept.clear()
        current = kept or service_rules(self._settings)
        self._kept[project_id] = now, current  # one asks, others go on with what is known
        try:
            current = await to_thread.run_sync(self._ask, project_id)
        except DATABASE_AWAY:
            log.warning("the limits of project %s cannot be read: those of before hold", project_id)
        self._kept[project_id] = now, current
        return current

    def _ask(self, project_id: str) -> Rules:
        with reading(self._sessions) as session:
            return rules(session, self._settings, project_id)


@dataclass(slots=True)
class KeyCounts:
    """What is in work now, by key."""

    requests: Counter[str] = field(default_factory=Counter)
    streams: Counter[str] = field(default_factory=Counter)


class KeyLimits:
    """Refuses what is beyond the limits of a key with 429, so that nobody takes all threads, memory or connections."""

    def __init__(self, app: ASGIApp, sessions: sessionmaker[Session], settings: Settings) -> None:
        self.app, self._most_in_work = app, settings.max_requests_per_key
        self._rules = ProjectRules(sessions, settings)
        self._rates, self._counts = RateLimiter(), KeyCounts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal = scope.get("state", {}).get("principal")
        if scope["type"] != "http" or principal is None:
            await self.app(scope, receive, send)
            return
        key, known = principal.actor, await self._rules.of(principal.project_id)
        waits = scope["path"].endswith(STREAM) or is_long_poll(scope["query_string"])
        counts, most = (
            (self._counts.streams, known.max_streams) if waits else (self._counts.requests, self._most_in_work)
        )
        rate = self._rates.take(key, known.max_requests_per_minute) if known.max_requests_per_minute else None
        if rate is not None:
            send = _with_fields(send, rate)
        problem = None
        if rate is not None and not rate.allowed:
            problem = rate_limited(rate)
        elif most and counts[key] >= most:
            problem = too_many_streams(most) if waits else too_many_requests(most)
        if problem is not None:
            await answer(problem, scope)(scope, receive, send)
            return
        counts[key] += 1
        scope["state"]["key_usage"] = KeyUsage(rate, self._counts.requests[key], self._counts.streams[key])
        try:
            await self.app(scope, receive, send)
        finally:
            counts[key] -= 1
            if not counts[key]:
                del counts[key]


def _with_fields(send: Send, rate: RateLimit) -> Send:
    """Add `RateLimit-Policy` and `RateLimit` to the response."""
    fields = [
        (b"ratelimit-policy", f'"{POLICY}";q={rate.limit};w={MINUTE}'.encode()),
        (b"ratelimit", f'"{POLICY}";r={rate.remaining};t={math.ceil(rate.full_seconds)}'.encode()),
    ]

    async def send_with_fields(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *fields]
        await send(message)

    return send_with_fields


def rate_limited(rate: RateLimit) -> HttpProblem:
    """429: the key has sent too many requests in this minute."""
    detail = (
        f"This key has sent more than its {rate.limit} requests a minute. Wait {rate.retry_after} s and send them more "
        "slowly; for what changes, use streams or long polls (wait=20) instead of asking again and again. An admin of "
        "the project sees its limits at /v1/projects, and the operator can raise them."
    )
    headers = {"Retry-After": str(rate.retry_after)}
    quota = Quota("requests_per_minute", limit=rate.limit, used=rate.limit)
    return HttpProblem(429, "rate_limited", detail, headers=headers, quota=quota)


def too_many_requests(limit: int) -> HttpProblem:
    """429: wait for some answers first."""
    detail = f"This key has {limit} requests in work already, which is its limit. Wait for some of the answers."
    quota = Quota("requests_in_work", limit=limit, used=limit)
    return HttpProblem(429, "too_many_requests", detail, headers={"Retry-After": "1"}, quota=quota)


def too_many_streams(limit: int) -> HttpProblem:
    """429: close some streams first."""
    detail = f"This key has {limit} streams and long polls open already, which is its limit. Close some of them."
    quota = Quota("streams", limit=limit, used=limit)
    return HttpProblem(429, "too_many_streams", detail, headers={"Retry-After": "5"}, quota=quota)
