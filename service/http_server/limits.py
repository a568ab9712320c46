"""How much one connection may cost."""

from __future__ import annotations

import resource
from dataclasses import dataclass, field
from functools import cache, partial

from service.cors import checked_origin
from service.proxy_headers import TrustedProxies, checked_root_path
from service.settings import Settings

MAX_URL_BYTES = 8 << 10
MAX_HEAD_BYTES = 32 << 10
"""The request line and all headers. (The longest that clients of this service send is tus' `Upload-Metadata`.)"""
MAX_HEADERS = 100
MAX_TRAILER_BYTES = 4 << 10
MAX_PIPELINED = 16
"""Requests of one connection that wait for the answer of an earlier one."""
MAX_FRAMING_RATIO, FRAMING_BYTES = 4, 64 << 10
"""Bytes on the wire for one byte of a chunked body, and bytes beyond that ratio: tiny chunks cost a call each."""
LINGER_SECONDS = 3.0
"""How long the rest of a request is read and dropped after its refusal, so that the client can read why."""
STALLED_SECONDS = 30.0
"""A client that takes nothing of its response for so long is disconnected."""
RESERVED_DESCRIPTORS = 128
"""What the process needs for its database (three files for each connection to SQLite), its files and its listener."""
HEALTH_CONNECTIONS = 32
"""Connections beyond a limit that may ask for the health of the service, and get a refusal for anything else."""
HEALTH_PATHS = ("/healthz", "/readyz")
HEALTH_SECONDS = 2.0
"""How long those have to ask."""
MIN_CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What the operator decides."""

    connections: int
    per_address: int
    head_seconds: float
    trusted: TrustedProxies = field(default_factory=partial(TrustedProxies, ()))
    root_path: str = ""
    cors_origins: frozenset[str] = frozenset()


def capacity(configured: int) -> int:
    """Return how many connections the process holds at most: what is configured, and what its descriptors allow."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    possible = max(MIN_CONNECTIONS, descriptors - RESERVED_DESCRIPTORS - HEALTH_CONNECTIONS)
    return min(configured, possible) if configured else possible


@cache
def connection_limits() -> ConnectionLimits:
    """Read the settings once: at the first connection, when the application has raised its limit of descriptors."""
    settings = Settings.from_env()
    limit = capacity(settings.max_connections)
    return ConnectionLimits(
        limit,
        settings.max_connections_per_address or limit,
        settings.request_head_seconds,
        TrustedProxies(settings.trusted_proxies),
        checked_root_path(settings.root_path),
        frozenset(map(checked_origin, settings.cors_origins)),
    )
