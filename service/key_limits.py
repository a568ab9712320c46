"""What one API key may ask of an API process: requests a minute, requests in work at a time, and streams that wait.

All of it is counted in the memory of the process: what it is to protect, threads and sockets, belongs to a process, and a
round trip before each request would cost more than it saves. Requests a minute are told to the other processes afterwards
(`shared_rates.py`).
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
from service.early_refusals import EarlyRefusals
from service.errors import DATABASE_AWAY, HttpProblem, Quota, answer
from service.monitoring.instrumentation import is_long_poll
from service.principal import Principal
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

    def last_known(self, project_id: str) -> Rules | None:
        """Return the rules of a project as they were read last, however long ago."""
        return self._kept.get(project_id, (0.0, None))[1]

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

    def __init__(
        self,
        app: ASGIApp,
        sessions: sessionmaker[Session],
        settings: Settings,
        early: EarlyRefusals | None = None,
        rates: RateLimiter | None = None,
    ) -> None:
        self.app, self._most_in_work, self._early = app, settings.max_requests_per_key, early
        self._rules = ProjectRules(sessions, settings)
        self._rates, self._counts = RateLimiter() if rates is None else rates, KeyCounts()
        if early is not None:
            early.add(self._early_problem)

    def _early_problem(self, principal: Principal, path: str, query: bytes) -> HttpProblem | None:
        known = self._rules.last_known(principal.project_id)
        if known is None:
            return None
        if known.max_requests_per_minute:
            rate = self._rates.look(principal.actor, known.max_requests_per_minute)
            if not rate.allowed:
                return rate_limited(rate, with_fields=True)
        return self._problem(principal.actor, known, waits=_waits(path, query))

    def _problem(self, key: str, known: Rules, *, waits: bool) -> HttpProblem | None:
        counts, most = self._limit(known, waits=waits)
        if not most or counts[key] < most:
            return None
        return too_many_streams(most) if waits else too_many_requests(most)

    def _limit(self, known: Rules, *, waits: bool) -> tuple[Counter[str], int | None]:
        if waits:
            return self._counts.streams, known.max_streams
        return self._counts.requests, self._most_in_work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal = scope.get("state", {}).get("principal")
        if scope["type"] != "http" or principal is None:
            await self.app(scope, receive, send)
            return
        if self._early is not None:
            self._early.remember(scope, principal)
        key, known = principal.actor, await self._rules.of(principal.project_id)
        waits = _waits(scope["path"], scope["query_string"])
        rate = self._rates.take(key, known.max_requests_per_minute) if known.max_requests_per_minute else None
        if rate is not None:
            send = _with_fields(send, rate)
        if rate is not None and not rate.allowed:
            problem: HttpProblem | None = rate_limited(rate)
        else:
            problem = self._problem(key, known, waits=waits)
        if problem is not None:
            await answer(problem, scope)(scope, receive, send)
            return
        counts, _ = self._limit(known, waits=waits)
        counts[key] += 1
        scope["state"]["key_usage"] = KeyUsage(rate, self._counts.requests[key], self._counts.streams[key])
        try:
            await self.app(scope, receive, send)
        finally:
            counts[key] -= 1
            if not counts[key]:
                del counts[key]


def _waits(path: str, query: bytes) -> bool:
    """Whether a request waits for news: an event stream, or a long poll."""
    return path.endswith(STREAM) or is_long_poll(query)


def _fields(rate: RateLimit) -> dict[str, str]:
    return {
        "RateLimit-Policy": f'"{POLICY}";q={rate.limit};w={MINUTE}',
        "RateLimit": f'"{POLICY}";r={rate.remaining};t={math.ceil(rate.full_seconds)}',
    }


def _with_fields(send: Send, rate: RateLimit) -> Send:
    """Add `RateLimit-Policy` and `RateLimit` to the response."""
    fields = [(name.lower().encode(), value.encode()) for name, value in _fields(rate).items()]

    async def send_with_fields(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *fields]
        await send(message)

    return send_with_fields


def rate_limited(rate: RateLimit, *, with_fields: bool = False) -> HttpProblem:
    """429: the key has sent too many requests in this minute. `with_fields`: RateLimit and RateLimit-Policy are its own."""
    detail = (
        f"This key has sent more than its {rate.limit} requests a minute. Wait {rate.retry_after} s and send them more "
        "slowly; for what changes, use streams or long polls (wait=20) instead of asking again and again. An admin of "
        "the project sees its limits at /v1/projects, and the operator can raise them."
    )
    headers = {"Retry-After": str(rate.retry_after), **(_fields(rate) if with_fields else {})}
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
