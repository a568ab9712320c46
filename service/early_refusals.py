"""Refusals for which the head of a request is enough: the HTTP server sends them before the application begins.

A refusal by the application costs a task, a log line and nine layers of middleware: too much of the event loop where
there are ten times as many requests as can be served. Only a key that the application has checked is refused here;
whose request it is must be known, so that no project is refused for the load of another.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Scope

from service.auth import is_open
from service.errors import HttpProblem
from service.principal import Principal

Check = Callable[[Principal, str, bytes], HttpProblem | None]
"""What would refuse a request of that principal, path and query, now."""
STATE = "early_refusals"
"""Where the state of the application's lifespan has them, for the HTTP server."""
KEPT = 1000


class EarlyRefusals:
    """What the middleware would refuse at once. It tells here how it decides, and whose keys it has seen."""

    def __init__(self) -> None:
        self._checks: list[Check] = []
        self._principals: dict[bytes, Principal] = {}

    def add(self, check: Check) -> None:
        """Ask this one too, before those that were added earlier: middleware is built from the inside."""
        self._checks.insert(0, check)

    def remember(self, scope: Scope, principal: Principal) -> None:
        """Remember whose key the request has. A key that is revoked meanwhile is refused all the same, with a 503."""
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if header not in self._principals:
            if len(self._principals) >= KEPT:
                self._principals.clear()
            self._principals[header] = principal

    def problem(self, authorization: bytes, path: str, query: bytes) -> HttpProblem | None:
        """Return the refusal of a request with that head; None where the application is to answer it."""
        principal = self._principals.get(authorization)
        if principal is None or is_open(path):
            return None
        return next((found for check in self._checks if (found := check(principal, path, query))), None)
