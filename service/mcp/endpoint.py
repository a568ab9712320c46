"""The MCP server at `/mcp`: streamable HTTP, with the keys, roles, limits and audit of the API.

A tool calls the API in this process with the caller's `Authorization`, as another client would: nothing is decided here.
Every request stands alone (stateless mode), so that any of several API processes can answer it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from anyio import Event, sleep_forever, to_thread
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import HttpProblem, answer
from service.load_shedding import leave_work
from service.roles import includes
from trainkit_client.config import Connection

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    from trainkit_client.mcp.api import ToolApi

MCP_PATH = "/mcp"
TIMEOUT_SECONDS = 120.0
"""Of a tool's request: more than any of them takes."""
log = logging.getLogger(__name__)
NO_CLIENT = ("", 0)
"""Of a connection over a Unix socket."""


class McpEndpoint:
    """The ASGI application of the route. `serve` has to run beside it.

    The SDK takes 30 MB and a second to import: it is imported at the first request. Where it cannot be, the API goes on.
    """

    def __init__(self, api: ASGIApp) -> None:
        self._api = api
        self._requested, self._ready = Event(), Event()
        self._managers: dict[bool, StreamableHTTPSessionManager] = {}
        """Read-only or not -> what answers."""

    async def serve(self) -> None:
        """Wait for the first request, and from then on serve until cancelled."""
        await self._requested.wait()
        try:
            managers = await to_thread.run_sync(self._build)
        except Exception:
            log.exception("the MCP server cannot be built")
            self._ready.set()
            return
        async with managers[False].run(), managers[True].run():
            self._managers = managers
            self._ready.set()
            await sleep_forever()

    def _build(self) -> dict[bool, StreamableHTTPSessionManager]:
        import httpx
        from mcp.server.transport_security import TransportSecuritySettings

        from trainkit_client._async.transport import AsyncTransport
        from trainkit_client.mcp.api import ToolApi
        from trainkit_client.mcp.server import build_server

        # the API logs each request by itself
        logging.getLogger("httpx").setLevel(logging.WARNING)
        caller: ContextVar[Request] = ContextVar("caller")

        async def remember_caller(
            ctx: ServerRequestContext[Any, Any], call_next: Callable[[ServerRequestContext[Any, Any]], Awaitable[Any]]
        ) -> Any:
            assert isinstance(ctx.request, Request)
            token = caller.set(ctx.request)
            try:
                return await call_next(ctx)
            finally:
                caller.reset(token)

        @asynccontextmanager
        async def connect() -> AsyncIterator[ToolApi]:
            scope = caller.get().scope
            transport = httpx.ASGITransport(
                self._api,
                raise_app_exceptions=False,
                client=scope.get("client") or NO_CLIENT,
            )
            headers = caller.get().headers
            connection = Connection(
                f"{scope['scheme']}://{headers.get('host', 'localhost')}",
                headers["authorization"].partition(" ")[2].strip(),
                headers.get("trainkit-project"),
            )
            requests = AsyncTransport(connection, timeout=TIMEOUT_SECONDS, max_retries=0, http_transport=transport)
            try:
                yield ToolApi(requests)
            finally:
                await requests.aclose()

        # Host and Origin were checked before, by the service's own settings
        checked = TransportSecuritySettings(enable_dns_rebinding_protection=False)
        managers = {}
        for read_only in (False, True):
            server = build_server(connect, read_only=read_only, middleware=[remember_caller])
            server.streamable_http_app(stateless_http=True, transport_security=checked)
            managers[read_only] = server.session_manager
        return managers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (problem := _problem(scope)) is not None:
            await answer(problem, scope)(scope, receive, send)
            return
        # a tool's own requests wait for their turns; this one would keep a place while it waits for them
        leave_work()
        self._requested.set()
        await self._ready.wait()
        if (manager := self._managers.get(_is_read_only(scope))) is None:
            detail = "The MCP server cannot be started; the service's log says why. The HTTP API is not affected."
            await answer(HttpProblem(500, "internal", detail), scope)(scope, receive, send)
            return
        await manager.handle_request(scope, receive, send)


def _is_read_only(scope: Scope) -> bool:
    """Whether only tools that read are offered: as `?read_only=true` says, or by the caller's role."""
    principal = scope["state"]["principal"]
    query: Mapping[str, list[str]] = parse_qs(scope["query_string"].decode("latin-1"))
    return query.get("read_only", ["false"])[-1] == "true" or not (
        includes(principal.role, "developer") or principal.choices
    )


def _problem(scope: Scope) -> HttpProblem | None:
    """What keeps a request from being answered: no key, or a page of another site that sends it."""
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    if b"authorization" not in headers:
        detail = "The MCP server takes API keys and tokens in the header Authorization, and no cookie."
        return HttpProblem(403, "cross_origin_refused", detail)
    origin = headers.get(b"origin")
    if origin is not None and not _is_same_host(origin, headers.get(b"host", "")):
        detail = f"A page of {origin[:80]!r} may not use the MCP server of this service."
        return HttpProblem(403, "cross_origin_refused", detail)
    return None


def _is_same_host(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False
