"""Deny by default: one ASGI middleware before everything; no route, mount or 404 is reached without a key."""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any

from anyio import to_thread
from fastapi import Depends, Request
from sqlalchemy.orm import sessionmaker
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import MEDIA_TYPE, Problem
from service.keys.service import Principal, authenticate

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/", "/ui", "/favicon.ico"})
OPEN_FOLDER = "/ui/"
KEEP_SECONDS = 2.0
"""How long a checked key is believed without asking the database again: revoking takes effect within this time."""


class Authentication:
    """Checks the bearer key, names the request, and lets only the open paths pass without."""

    def __init__(self, app: ASGIApp, sessions: sessionmaker[Any]) -> None:
        self.app, self.sessions = app, sessions
        self._known: dict[str, tuple[float, Principal]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex[:16]
        scope.setdefault("state", {})["request_id"] = request_id

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        path = scope["path"]
        if path in OPEN_PATHS or (path.startswith(OPEN_FOLDER) and ".." not in path):
            await self.app(scope, receive, named)
            return
        principal = await self._principal(scope)
        if principal is None:
            await _refusal(request_id)(scope, receive, named)
            return
        scope["state"]["principal"] = principal
        await self.app(scope, receive, named)

    async def _principal(self, scope: Scope) -> Principal | None:
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        kind, _, key = header.decode("latin-1").partition(" ")
        if kind.lower() != "bearer":
            return None
        known = self._known.get(key)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        principal = await to_thread.run_sync(self._ask, key.strip())
        if principal is not None:
            if len(self._known) > 1000:
                self._known.clear()
            self._known[key] = (time.monotonic() + KEEP_SECONDS, principal)
        return principal

    def _ask(self, key: str) -> Principal | None:
        with self.sessions.begin() as session:
            return authenticate(session, key)


def _refusal(request_id: str) -> JSONResponse:
    problem = Problem(401, "unauthorized", "Send a valid key in the header `Authorization: Bearer tk_...`.")
    headers = {"WWW-Authenticate": 'Bearer realm="trainkit"'}
    return JSONResponse(problem.body(request_id), status_code=401, headers=headers, media_type=MEDIA_TYPE)


class Needs:
    """Dependency of every route: the scope that its key must have."""

    def __init__(self, scope: str) -> None:
        self.scope = scope

    def __call__(self, request: Request) -> Principal:
        principal: Principal = request.state.principal
        if self.scope not in principal.scopes and "admin" not in principal.scopes:
            raise Problem(403, "forbidden", f"This needs a key with the scope {self.scope!r}.")
        return principal


Reader = Annotated[Principal, Depends(Needs("read"))]
Writer = Annotated[Principal, Depends(Needs("write"))]
Admin = Annotated[Principal, Depends(Needs("admin"))]
