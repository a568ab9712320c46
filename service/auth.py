"""Deny by default: one ASGI middleware before everything; no route, mount or 404 is reached without a key."""

from __future__ import annotations

import hmac
import time
from collections.abc import Collection
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from sqlalchemy.orm import Session, sessionmaker
from starlette.types import ASGIApp, Receive, Scope, Send

from service.database import reading
from service.errors import DATABASE_AWAY, BodyProblem, HttpProblem, answer, database_away
from service.http_server.connections import address_of
from service.keys.service import FORM, ExpiredKeyError, Principal, authenticate, touch
from service.problem_types import PROBLEM_TYPES
from service.roles import OPERATOR, Role, includes
from service.stream_tickets import service as stream_tickets
from service.wrong_keys import WrongKeys

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/ui", "/docs"})
OPEN_FOLDERS = ("/ui/", "/docs/")
METRICS_PATH = "/metrics"
STREAM = "/stream"
KEEP_SECONDS = 2.0
"""How long a checked key is believed without asking the database again: revoking takes effect within this time."""
TOUCH_SECONDS = 60.0
KEPT_KEYS = 1000


class Authentication:
    """Checks the bearer key, and lets only the open paths pass without.

    `metrics_token` opens `/metrics` and nothing else, and needs no database to be checked. `open_paths` are those that the
    operator has opened.
    """

    def __init__(
        self,
        app: ASGIApp,
        sessions: sessionmaker[Session],
        metrics_token: str | None = None,
        max_key_days: int = 0,
        open_paths: Collection[str] = (),
        max_wrong_keys: int = 0,
    ) -> None:
        self.app, self.sessions, self._open_paths = app, sessions, frozenset(open_paths)
        self._metrics_token, self._max_key_days = (metrics_token or "").encode(), max_key_days
        self._known: dict[str, tuple[float, Principal]] = {}
        self._touched: dict[str, float] = {}
        self._wrong_keys = WrongKeys(sessions, max_wrong_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        scope.setdefault("state", {})
        if not is_open(scope["path"]) and scope["path"] not in self._open_paths:
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
        """Return who asks. Raises a 401 problem, or 429 after too many wrong keys."""
        header = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        if scope["path"].endswith(STREAM):
            scope["query_string"], tickets = stream_tickets.without_ticket(scope["query_string"])
            if header is None and tickets:
                return await self._ticket_holder(scope, tickets)
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
        address = address_of(scope.get("client"))
        try:
            await self._wrong_keys.check(address, key)
            principal = await to_thread.run_sync(self._ask, key, (scope.get("client") or (None,))[0])
        except ExpiredKeyError:
            self._wrong_keys.count(address)
            raise unauthorized("key_expired") from None
        except DATABASE_AWAY:
            if for_metrics and known is not None:
                return known[1]  # a scrape must tell that the database is away; meanwhile nobody can revoke its key
            raise
        if principal is None:
            self._wrong_keys.count(address)
            raise unauthorized("key_invalid")
        if len(self._known) >= KEPT_KEYS:
            self._known.clear()
            self._touched.clear()
        self._known[key] = (time.monotonic() + KEEP_SECONDS, principal)
        return principal

    async def _ticket_holder(self, scope: Scope, tickets: list[str]) -> Principal:
        """Return who asks by a stream ticket. Raises a 401 problem, or 429 after too many wrong keys and tickets."""
        principal, address = None, address_of(scope.get("client"))
        self._wrong_keys.check_address(address)
        if len(tickets) == 1 and scope["method"] in ("GET", "HEAD"):
            principal = await to_thread.run_sync(self._redeem, tickets[0], scope["path"])
        if principal is None:
            self._wrong_keys.count(address)
            raise unauthorized("ticket_invalid")
        return principal

    def _redeem(self, ticket: str, path: str) -> Principal | None:
        with reading(self.sessions) as session:
            return stream_tickets.redeem(session, ticket, path, self._max_key_days)

    def _ask(self, key: str, address: str | None) -> Principal | None:
        # a wrong key only reads: guessing must not keep writers waiting
        with reading(self.sessions) as session:
            principal = authenticate(session, key, self._max_key_days)
        now = time.monotonic()
        if principal is None or principal.key_id is None:
            return None
        if now - self._touched.get(principal.key_id, -TOUCH_SECONDS) >= TOUCH_SECONDS:
            self._touched[principal.key_id] = now
            with self.sessions.begin() as session:
                touch(session, principal.key_id, address)
        return principal


SCRAPER = Principal("metrics-token", operator=True)
"""Whoever has the token: only ever let through to `/metrics`."""


def is_open(path: str) -> bool:
    """Whether a path needs no key: health, and static files of the dashboard and the documentation, which hold no data."""
    return path in OPEN_PATHS or (path.startswith(OPEN_FOLDERS) and ".." not in path)


def unauthorized(
    code: Literal["key_missing", "key_malformed", "key_invalid", "key_expired", "ticket_invalid"],
) -> HttpProblem:
    """401, with what is wrong with the key and the way to do it right (RFC 6750)."""
    about = PROBLEM_TYPES[code]
    challenge = 'Bearer realm="trainkit"'
    if code != "key_missing":
        challenge += f', error="invalid_token", error_description="{about.title}"'
    detail = f"{about.meaning} {about.hint}"
    return HttpProblem(401, code, detail, headers={"WWW-Authenticate": challenge})


class Needs:
    """Dependency of every route: the role that the caller must have in the project; None lets everybody who is known pass.

    `or_operator` lets the operator pass as well, who then needs no role there.
    """

    def __init__(self, role: Role | None, *, or_operator: bool = False) -> None:
        self.role, self.or_operator = role, or_operator

    async def __call__(self, request: Request) -> Principal:
        principal: Principal = request.state.principal
        if (problem := self.problem(principal)) is not None:
            raise problem
        return principal

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles of which one is needed; none for whoever is known."""
        return (*(() if self.role is None else (self.role,)), *((OPERATOR,) if self.or_operator else ()))

    def problem(self, principal: Principal) -> HttpProblem | None:
        """403 without the role, 409 for writes to an archived project."""
        if self.role is None or (principal.operator and (self.or_operator or self.role == OPERATOR)):
            return None
        if self.role == OPERATOR:
            hint = "`trainkit key create --role operator` creates such a key."
            return _forbidden(self.role, f"This needs the role operator, which is the platform's. {hint}")
        if not includes(principal.role, self.role):
            held = f"yours in this project is {principal.role}" if principal.role else "you have none in any project"
            detail = f"This needs the role {self.role}; {held}. An admin of the project can give it."
            return _forbidden(self.role, detail)
        if principal.is_archived and self.role == "developer":
            return project_archived()
        return None


def _forbidden(role: Role, detail: str) -> HttpProblem:
    challenge = f'Bearer realm="trainkit", error="insufficient_scope", scope="{role}"'
    return HttpProblem(403, "forbidden", detail, headers={"WWW-Authenticate": challenge})


def project_archived() -> HttpProblem:
    """409: the project is only read."""
    detail = "The project is archived: it can be read, and nothing in it changes. The operator can take it back to use "
    return HttpProblem(409, "project_archived", detail + '(PATCH /v1/projects/{project_id} with {"archived": false}).')


def check_role(scope: Scope) -> None:
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


BEARER = HTTPBearer(auto_error=False, scheme_name="key", description="`trainkit key create` creates a key.")
"""Only tells OpenAPI about the header: the middleware has checked it long before."""
Reader = Annotated[Principal, Depends(Needs("viewer"))]
Writer = Annotated[Principal, Depends(Needs("developer"))]
Admin = Annotated[Principal, Depends(Needs("admin"))]
Manager = Annotated[Principal, Depends(Needs("admin", or_operator=True))]
"""Who manages a project: its admins, and the operator."""
Operator = Annotated[Principal, Depends(Needs("operator"))]
Authenticated = Annotated[Principal, Depends(Needs(None))]
"""Whoever is known, with whatever role."""
