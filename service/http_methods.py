"""What every resource answers beside its own methods: HEAD like GET without the body, OPTIONS, and a complete `Allow`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fastapi.routing import APIRoute, iter_route_contexts
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PARAMETER = re.compile(r"\{[^}]*\}")
FOUND_BY_ROUTING = ("route", "endpoint", "path_params", "root_path")


class HttpMethods:
    """Answers HEAD and OPTIONS where a route leaves them out, and names all methods of a resource in `Allow`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        routed = methods_at(scope["app"].routes, scope["path"]) if scope["method"] in ("HEAD", "OPTIONS") else set()
        if scope["method"] == "OPTIONS" and routed and "OPTIONS" not in routed:
            await Response(status_code=204, headers={"Allow": allow(routed)})(scope, receive, send)
        elif scope["method"] == "HEAD" and "GET" in routed and "HEAD" not in routed:
            await self._head(scope, receive, send)
        else:
            await self._with_allow(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def without_body(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        async def until_started() -> Message:
            # a stream would go on for ever
            return {"type": "http.disconnect"} if started else await receive()

        get = {**scope, "method": "GET"}
        try:
            await self.app(get, until_started, without_body)
        finally:
            # what was routed is counted and logged under the route's name
            scope.update({name: get[name] for name in FOUND_BY_ROUTING if name in get})

    async def _with_allow(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def completed(message: Message) -> None:
            if message["type"] == "http.response.start" and (
                message["status"] == 405 or (scope["method"] == "OPTIONS" and message["status"] < 300)
            ):
                methods = methods_at(scope["app"].routes, scope["path"])
                if methods:
                    MutableHeaders(scope=message)["Allow"] = allow(methods)
            await send(message)

        await self.app(scope, receive, completed)


def methods_at(routes: Iterable[BaseRoute], path: str) -> set[str]:
    """Return the methods that routes declare at that path; empty where there is none.

    `/datasets/x:reread` is also an id of `/datasets/{dataset_id}`: the template with more literal text is meant.
    """
    found: dict[int, set[str]] = {}
    for context in iter_route_contexts(list(routes)):
        if isinstance(context.original_route, APIRoute) and context.path_regex.match(path):
            literal = len(PARAMETER.sub("", context.path_format or ""))
            found.setdefault(literal, set()).update(context.methods or ())
    return found[max(found)] if found else set()


def allow(methods: set[str]) -> str:
    """Return the value of `Allow`: the declared methods, OPTIONS, and HEAD beside GET."""
    return ", ".join(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))
