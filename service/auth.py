"""Deny by default: one ASGI middleware before everything; no route, mount or 404 is reached without a key."""

from __future__ import annotations

import hmac
import time
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from sqlalchemy.orm import Session, sessionmaker
from starlette.types import ASGIApp, Receive, Scope, Send

from service.database import reading
from service.errors import DATABASE_AWAY, BodyProblem, HttpProblem, answer, database_away
from service.keys.service import FORM, ExpiredKeyError, Principal, authenticate, touch
from service.keys.service import Scope as KeyScope
from service.problem_types import PROBLEM_TYPES

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/ui"})
OPEN_FOLDERS = ("/ui/", "/docs/")
METRICS_PATH = "/metrics"
KEEP_SECONDS = 2.0
"""How long a checked key is believed without asking the database again: revoking takes effect within this time."""
TOUCH_SECONDS = 60.0
KEPT_KEYS = 1000


class Authentication:
    """Checks the bearer key, and lets only the open paths pass without.

    `metrics_token` opens `/metrics` and nothing else, and needs no database to be checked.
    """

    def __init__(self, app: ASGIApp, sessions: sessionmaker[Session], metrics_token: str | None = None) -> None:
        self.app, self.sessions = app, sessions
        self._metrics_token = (metrics_token or "").encode()
        self._known: dict[str, tuple[float, Principal]] = {}
        self._touched: dict[str, float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        scope.setdefault("state", {})
        if not is_open(scope["path"]):
            try:
                scope["state"]["principal"] = await self._principal(scope)
            except DATABASE_AWAY:
                await answer(database_away(), scope)(scope, receive, send)
                return
            except HttpProblem as problem:
                await answer(problem, scope)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _principal(self, scope: Scope) -> Principal:
        """Return who asks. Raises a 401 problem."""
        header = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        if header is None:
            raise unauthorized("key_missing")
        kind, _, key = header.decode("latin-1").partition(" ")
        key = key.strip()
        if kind.lower() != "bearer":
            raise unauthorized("key_malformed")
        for_metrics = scope["path"] == METRICS_PATH
        if for_metrics and self._metrics_token and hmac.compare_digest(key.encode("latin-1"), self._metrics_token):
            return SCRAPER
        known = self._known.get(key)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        if FORM.fullmatch(key) is None:
            raise unauthorized("key_malformed")
        try:
            principal = await to_thread.run_sync(self._ask, key)
        except ExpiredKeyError:
            raise unauthorized("key_expired") from None
        except DATABASE_AWAY:
            if for_metrics and known is not None:
                return known[1]  # a scrape must tell that the database is away; meanwhile nobody can revoke its key
            raise
        if principal is None:
            raise unauthorized("key_invalid")
        if len(self._known) >= KEPT_KEYS:
            self._known.clear()
            self._touched.clear()
        self._known[key] = (time.monotonic() + KEEP_SECONDS, principal)
        return principal

    def _ask(self, key: str) -> Principal | None:
        # a wrong key only reads: guessing must not keep writers waiting
        with reading(self.sessions) as session:
            principal = authenticate(session, key)
        now = time.monotonic()
        if principal is not None and now - self._touched.get(principal.key_id, -TOUCH_SECONDS) >= TOUCH_SECONDS:
            self._touched[principal.key_id] = now
            with self.sessions.begin() as session:
                touch(session, principal.key_id)
        return principal


SCRAPER = Principal("metrics-token", "", frozenset({"operator"}))
"""Whoever has the token: only ever let through to `/metrics`."""


def is_open(path: str) -> bool:
    """Whether a path needs no key: health, and static files of the dashboard and the documentation, which hold no data."""
    return path in OPEN_PATHS or (path.startswith(OPEN_FOLDERS) and ".." not in path)


def unauthorized(code: Literal["key_missing", "key_malformed", "key_invalid", "key_expired"]) -> HttpProblem:
    """401, with what is wrong with the key and the way to do it right (RFC 6750)."""
    about = PROBLEM_TYPES[code]
    challenge = 'Bearer realm="trainkit"'
    if code != "key_missing":
        challenge += f', error="invalid_token", error_description="{about.title}"'
    detail = f"{about.meaning} {about.hint}"
    return HttpProblem(401, code, detail, headers={"WWW-Authenticate": challenge})


class Needs:
    """Dependency of every route: the scope that its key must have."""

    def __init__(self, scope: KeyScope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Principal:
        principal: Principal = request.state.principal
        if (problem := self.problem(principal)) is not None:
            raise problem
        return principal

    def problem(self, principal: Principal) -> HttpProblem | None:
        """403 for a key without the scope."""
        by_admin = self.scope != "operator" and "admin" in principal.scopes
        if self.scope in principal.scopes or by_admin:
            return None
        hint = " `trainkit key create --scopes operator` makes one." if self.scope == "operator" else ""
        challenge = f'Bearer realm="trainkit", error="insufficient_scope", scope="{self.scope}"'
        detail = f"This needs a key with the scope {self.scope!r}.{hint}"
        return HttpProblem(403, "forbidden", detail, headers={"WWW-Authenticate": challenge})


def check_scope(scope: Scope) -> None:
    """Check the key against the route that was matched, before its body is read. Raises a 403 problem for body parsers.

    FastAPI reads a body before it asks the dependencies, so that anybody's would be parsed.
    """
    principal = scope.get("state", {}).get("principal")
    dependant = getattr(scope.get("route"), "dependant", None)
    if principal is None or dependant is None:
        return
    for dependency in dependant.dependencies:
        if isinstance(dependency.call, Needs) and (problem := dependency.call.problem(principal)) is not None:
            raise BodyProblem(problem)


BEARER = HTTPBearer(auto_error=False, scheme_name="key", description="`trainkit key create` makes a key.")
"""Only tells OpenAPI about the header: the middleware has checked it long before."""
Reader = Annotated[Principal, Depends(Needs("read"))]
Writer = Annotated[Principal, Depends(Needs("write"))]
Admin = Annotated[Principal, Depends(Needs("admin"))]
Operator = Annotated[Principal, Depends(Needs("operator"))]
