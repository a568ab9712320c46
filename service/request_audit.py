"""The one place where requests meet the audit log: who asks is known to every transaction of theirs, and what is refused
is counted.
"""

from __future__ import annotations

from collections.abc import Iterator

from anyio import to_thread
from fastapi.dependencies.models import Dependant
from sqlalchemy.orm import Session, sessionmaker
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.audit import repository
from service.audit.changes import entries
from service.audit.refusals import Refusals
from service.audit.trail import ANONYMOUS, Facts, acting
from service.auth import Needs
from service.errors import DATABASE_AWAY, answer, database_away
from service.http_server.connections import address_of
from service.operation_ids import operation_id

READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_USER_AGENT = 200
MAX_ID, MAX_REASON = 300, 500
SIGN_IN_FAILED = "sign_in_failed"
"""A 400 that is a refusal all the same: somebody came back from the provider, or pretended to, and was not let in."""


class RequestTrail:
    """Where a request comes from. Key and route are known once the middleware inside have found them."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.recorded = 0

    def facts(self) -> Facts:
        scope, principal = self._scope, self._scope["state"].get("principal")
        actor = ANONYMOUS
        if principal is not None:
            kind, _, identifier = principal.actor.partition(":")
            actor = {
                "kind": kind,
                "id": identifier or principal.actor,
                "role": principal.role,
                "operator": principal.operator,
                "project": principal.project_id or None,
            }
        route = scope.get("route")
        facts = {
            "actor": actor,
            "operation": operation_id(route),
            "client": {"address": address_of(scope.get("client")) or None, "user_agent": self._user_agent()},
            "request_id": scope["state"].get("request_id"),
            "project": actor["project"],
        }
        if route is not None:
            # for transactions that are committed before the response is known
            facts["status"] = getattr(route, "status_code", None) or 200
        return facts

    def resource(self) -> dict[str, str] | None:
        """Return kind and id, or name, by the first parameter of the path: the others belong to it."""
        for name, value in self._scope.get("path_params", {}).items():
            return {"kind": name.removesuffix("_id"), "id": str(value)[:MAX_ID]}
        return None

    @property
    def writes(self) -> bool:
        """Whether the request is one that changes something: no GET, and no operation that a viewer may do."""
        route = self._scope.get("route")
        if route is None or self._scope["method"] in READING_METHODS:
            return False
        return "viewer" not in roles_of(getattr(route, "dependant", None))

    def _user_agent(self) -> str | None:
        raw = next((value for name, value in self._scope["headers"] if name == b"user-agent"), b"")
        text = raw[:MAX_USER_AGENT].decode("latin-1")
        return "".join(letter if letter.isprintable() else "?" for letter in text) or None


def roles_of(dependant: Dependant | None) -> set[str]:
    """Return the roles of which a route's caller must have one."""
    return set(_roles(dependant)) if dependant is not None else set()


def _roles(dependant: Dependant) -> Iterator[str]:
    if isinstance(dependant.call, Needs):
        yield from dependant.call.roles
    for inner in dependant.dependencies:
        yield from _roles(inner)


class AuditRequests:
    """Wraps authentication and all that is inside it.

    Transactions with a request's trail leave entries by themselves (`changes.py`). A request that changed something else,
    such as the bytes of an upload, leaves its entry here, before its response is sent.
    """

    def __init__(self, app: ASGIApp, sessions: sessionmaker[Session], refusals: Refusals) -> None:
        self.app, self._sessions, self._refusals = app, sessions, refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope.setdefault("state", {})
        trail = RequestTrail(scope)
        refused = False

        async def send_recorded(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                status = message["status"]
                if status in (401, 403, 404) or scope["state"].get("problem") == SIGN_IN_FAILED:
                    self._count(trail, scope, status)
                elif status < 400 and trail.writes and not trail.recorded:
                    try:
                        await to_thread.run_sync(self._write, trail, status)
                    except DATABASE_AWAY:
                        refused = True
                        await answer(database_away(), scope)(scope, receive, send)
            if not refused:
                await send(message)

        with acting(trail):
            await self.app(scope, receive, send_recorded)

    def _write(self, trail: RequestTrail, status: int) -> None:
        with acting(None), self._sessions.begin() as session:
            repository.add_pending(session, entries(trail, {}, status))

    def _count(self, trail: RequestTrail, scope: Scope, status: int) -> None:
        facts, resource = trail.facts(), trail.resource()
        facts.pop("status", None)
        if status == 404:
            if facts["actor"]["project"] is not None and resource is not None:
                self._refusals.sought(facts, status, resource)
            return
        code, detail = scope["state"].get("problem"), scope["state"].get("problem_detail")
        self._refusals.count(facts, status, code, resource, reason=detail and detail[:MAX_REASON])
