"""All open connections of a process: who may stay when there are too many, and whose time is over."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections import Counter
from functools import lru_cache
from typing import Protocol

from service.errors import HttpProblem
from service.http_server.limits import HEALTH_CONNECTIONS, ConnectionLimits
from service.monitoring.request_metrics import REFUSED_CONNECTIONS

log = logging.getLogger(__name__)
SWEEP_SECONDS = 0.5
LOG_SECONDS = 10.0
OF_ADDRESS = "This address has too many open connections."


class Connection(Protocol):
    """What the table asks of a connection."""

    address: str

    def is_idle(self) -> bool:
        """Whether no request of it is being answered."""

    def restrict(self, problem: HttpProblem) -> None:
        """Answer health checks only; everything else with this problem."""

    def abort(self) -> None:
        """Close it at once."""

    def check(self, now: float) -> None:
        """Close it when its time is over."""


def address_of(peer: tuple[str, int] | None) -> str:
    """Return what one client can be told by: an IPv4 address, or the /64 network that one IPv6 host has to itself."""
    return "" if peer is None else _address_of_host(peer[0])


@lru_cache(maxsize=4096)
def _address_of_host(host: str) -> str:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class ConnectionTable:
    """The connections of one event loop, oldest first, by address.

    When a limit is passed, the oldest connection without a request makes place: first of the same address, and for the
    limit of the process of the address that has most. Where all are busy, the new one may only ask for health.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._by_address: dict[str, dict[Connection, None]] = {}
        self._restricted: dict[Connection, None] = {}
        self._count = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._refused: Counter[str] = Counter()
        self._log_at = 0.0

    def __len__(self) -> int:
        return self._count

    def add(self, connection: Connection) -> None:
        """Admit a new connection, at the cost of an idle one where there are too many."""
        peers = self._by_address.setdefault(connection.address, {})
        peers[connection] = None
        self._count += 1
        if connection.address and len(peers) > self.limits.per_address:
            if not self._evict(connection, peers):
                self._restrict(connection, too_many_connections(429, OF_ADDRESS))
        elif self._count > self.limits.connections:
            crowd = max(self._by_address.values(), key=len)
            # behind a proxy the crowd is a client, and what is idle is the proxy's
            if not self._evict(connection, crowd) and not self._evict(connection, peers):
                self._restrict(connection, too_many_connections(503, "The service has too many open connections."))
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def discard(self, connection: Connection) -> None:
        """Forget a closed connection."""
        peers = self._by_address.get(connection.address, {})
        if connection in peers:
            del peers[connection]
            self._count -= 1
            if not peers:
                del self._by_address[connection.address]
        self._restricted.pop(connection, None)

    def move(self, connection: Connection, address: str) -> HttpProblem | None:
        """Count a connection for another address: a proxy's is its client's while a request of that is answered.

        Returns:
            The refusal of the request where the address has too many; None otherwise.
        """
        peers = self._by_address.get(connection.address, {})
        if address == connection.address or connection not in peers:
            return None
        del peers[connection]
        if not peers:
            del self._by_address[connection.address]
        connection.address = address
        peers = self._by_address.setdefault(address, {})
        peers[connection] = None
        if address and len(peers) > self.limits.per_address and not self._evict(connection, peers):
            return too_many_connections(429, OF_ADDRESS)
        return None

    def refused(self, reason: str) -> None:
        """Count a connection that was refused or closed."""
        REFUSED_CONNECTIONS.labels(reason).inc()
        self.note(reason)

    def note(self, reason: str) -> None:
        """Have the log tell of a refusal, together with others."""
        self._refused[reason] += 1

    def _evict(self, new: Connection, among: dict[Connection, None]) -> bool:
        """Close the oldest connection without a request, if there is one."""
        oldest = next((one for one in among if one is not new and one.is_idle()), None)
        if oldest is None:
            return False
        self.refused("evicted")
        self.discard(oldest)
        oldest.abort()
        return True

    def _restrict(self, new: Connection, problem: HttpProblem) -> None:
        self._restricted[new] = None
        new.restrict(problem)
        if len(self._restricted) > HEALTH_CONNECTIONS:
            first = next(iter(self._restricted))
            self.refused("too_many_connections")
            self.discard(first)
            first.abort()

    def _sweep(self) -> None:
        now = time.monotonic()
        for peers in list(self._by_address.values()):
            for connection in list(peers):
                connection.check(now)
        if self._refused and now >= self._log_at:
            # one line for all: a flood of refusals is no flood of the log
            counts = ", ".join(f"{reason} {count}" for reason, count in sorted(self._refused.items()))
            log.warning("refused: %s; open connections: %d", counts, self._count)
            self._refused.clear()
            self._log_at = now + LOG_SECONDS
        busy = self._count or self._refused
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep) if busy else None


def too_many_connections(status: int, detail: str) -> HttpProblem:
    """Return the refusal of a connection beyond a limit."""
    advice = "Close connections that you do not need, or use one for several requests. Try again later."
    return HttpProblem(status, "too_many_connections", f"{detail} {advice}", headers={"Retry-After": "5"})
