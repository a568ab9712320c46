"""The event loop of an API process: asyncio's own, which takes new connections, and refused clients, few at a time."""

from __future__ import annotations

import asyncio
import heapq
import selectors
import socket
from collections.abc import Sequence
from typing import Any

ACCEPTED = 8
"""New connections of one turn of the loop. uvloop takes one, so that under load the others wait for seconds; asyncio takes
as many as the backlog holds (2048), so that all requests wait meanwhile, and the descriptors are used up before
`ConnectionTable` has seen the first of them. A connection is read two turns later: until then no more than
HEALTH_CONNECTIONS may come, or a flood of them would push out a health check unread."""

DEFERRED = 32
"""Deferred sockets that one turn reads. A refusal takes 0.1 to 0.2 ms: a thousand of them in one turn would be so long a
wait for everybody else, the health checks among them."""


class ServerEventLoop(asyncio.SelectorEventLoop):
    """`uvicorn --loop service.http_server.event_loop:ServerEventLoop`.

    Reads all sockets that have something to read in each turn, as asyncio does, but of the deferred ones only
    `DEFERRED`: first those that have waited since the earliest turn.
    """

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        super().__init__(selector)
        self._turn = 0
        self._deferred: dict[int, int] = {}
        """Turn in which each deferred socket was read last, by descriptor."""

    def defer(self, descriptor: int, *, deferred: bool) -> None:
        """Read this socket after those of others from now on, or as every other one again."""
        if deferred:
            self._deferred[descriptor] = self._turn
        else:
            self._deferred.pop(descriptor, None)

    def _process_events(self, event_list: Sequence[tuple[selectors.SelectorKey, int]]) -> None:
        self._turn += 1
        if len(event_list) > DEFERRED and len(self._deferred) > DEFERRED:
            event_list = self._chosen(event_list)
        super()._process_events(event_list)  # type: ignore[misc]

    def _chosen(
        self, event_list: Sequence[tuple[selectors.SelectorKey, int]]
    ) -> list[tuple[selectors.SelectorKey, int]]:
        chosen, waiting = [], []
        for event in event_list:
            key, mask = event
            if key.fd in self._deferred and mask == selectors.EVENT_READ:
                waiting.append(event)  # what is left out is there in the next turn again
            else:
                chosen.append(event)
        turns = heapq.nsmallest(DEFERRED, waiting, key=lambda event: self._deferred[event[0].fd])
        for key, _ in turns:
            self._deferred[key.fd] = self._turn
        return chosen + turns

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
