"""The event loop of an API process: asyncio's own, which takes new connections a few at a time."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

ACCEPTED = 8
"""New connections of one turn of the loop. uvloop takes one, so that under load the others wait for seconds; asyncio takes
as many as the backlog holds (2048), so that all requests wait meanwhile, and the descriptors are used up before
`ConnectionTable` has seen the first of them. A connection is read two turns later: until then no more than
HEALTH_CONNECTIONS may come, or a flood of them would push out a health check unread."""


class ServerEventLoop(asyncio.SelectorEventLoop):
    """`uvicorn --loop service.http_server.event_loop:ServerEventLoop`."""

    def _accept_connection(
        self,
        protocol_factory: Any,
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        *further: Any,
    ) -> None:
        accept = super()._accept_connection  # type: ignore[misc]
        accept(protocol_factory, sock, sslcontext, server, min(backlog, ACCEPTED), *further)
