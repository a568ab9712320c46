"""What a trusted proxy says of a request: the client's address, its scheme and host, and the path that leads here.

Inside the application a path is always that of the OpenAPI document, such as `/v1/jobs`, and `scope["client"]` is the
client's own address. A header of anybody else than a trusted proxy changes nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]{1,100}){1,10}", re.ASCII)
RESERVED = frozenset({"v1", "ui", "docs", "openapi.json", "healthz", "readyz", "metrics"})
MAX_HOPS = 20
"""Addresses of `X-Forwarded-For` that are looked at, from the last one on."""
Headers = Iterable[tuple[bytes, bytes]]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TrustedProxies:
    """Addresses and networks whose `X-Forwarded-*` headers are believed. Raises ValueError for what is neither."""

    def __init__(self, names: Sequence[str]) -> None:
        self._networks: list[Network] = []
        for name in names:
            try:
                self._networks.append(ipaddress.ip_network(name))
            except ValueError as error:
                hint = 'It takes addresses and networks such as 10.0.0.0/8, or "none".'
                raise ValueError(f"TRAINKIT_TRUSTED_PROXIES holds {name!r}: {error}. {hint}") from None

    def __contains__(self, address: str) -> bool:
        found = _address(address)
        return found is not None and any(
            network.version == found.version and found in network for network in self._networks
        )

    def client(self, peer: str, headers: Headers) -> str | None:
        """Return the address of the client for whom the peer, a trusted proxy, asks; None where it does not say.

        Each proxy adds the address that it was called from at the end, and whoever is not trusted may have written what
        stands before: the last address that is no trusted proxy is the client.
        """
        if peer not in self:
            return None
        hops = b",".join(value for name, value in headers if name == b"x-forwarded-for").split(b",")
        client = None
        for hop in hops[: -MAX_HOPS - 1 : -1]:
            address = _address(_without_port(hop.decode("latin-1").strip()))
            if address is None:
                break
            client = str(address)
            if client not in self:
                break
        return client

    def prefix(self, peer: str, headers: Headers) -> str:
        """Return the path that the peer, a trusted proxy, serves the API below; empty where it names none, or a wrong one."""
        given = next((value for name, value in headers if name == b"x-forwarded-prefix"), b"")
        if not given or peer not in self:
            return ""
        try:
            return checked_root_path(given.decode("latin-1").strip())
        except ValueError:
            return ""


class ProxyHeaders:
    """The outermost middleware. `root_path` is the operator's; without it `X-Forwarded-Prefix` of a trusted proxy counts.

    The path may come with the prefix or without it: both kinds of proxies are there.
    """

    def __init__(self, app: ASGIApp, trusted: TrustedProxies, root_path: str = "") -> None:
        self.app, self._trusted, self._root_path = app, trusted, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope = {**scope, "state": {**scope.get("state", {})}}
        peer = (scope.get("client") or ("", 0))[0]
        root_path = self._root_path or self._trusted.prefix(peer, scope["headers"])
        if peer in self._trusted:
            self._apply(scope, peer)
        scope["state"]["root_path"] = root_path
        if root_path:
            scope["path"] = without_root_path(scope["path"], root_path)

        async def send_located(message: Message) -> None:
            if message["type"] == "http.response.start":
                keep = scope["state"].get("keep_location", False)
                headers = [
                    (name, _location(value, scope, root_path) if name.lower() == b"location" and not keep else value)
                    for name, value in message["headers"]
                ]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_located)

    def _apply(self, scope: Scope, peer: str) -> None:
        client = self._trusted.client(peer, scope["headers"])
        if client is not None:
            scope["client"] = (client, 0)
        scheme, host = (_last(scope["headers"], name) for name in (b"x-forwarded-proto", b"x-forwarded-host"))
        if scheme in (b"http", b"https"):
            scope["scheme"] = scheme.decode()
        if host:
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"host"]
            scope["headers"].append((b"host", host))


def root_path_of(scope: Scope) -> str:
    """Return the path below which the client reaches the service, such as `/trainkit`; empty for none."""
    root_path: str = scope.get("state", {}).get("root_path", "")
    return root_path


def without_root_path(path: str, root_path: str) -> str:
    """Return the path inside the application of one that may begin with the root path."""
    if not root_path or not path.startswith(root_path):
        return path
    rest = path[len(root_path) :]
    return rest or "/" if rest[:1] in ("", "/") else path


def checked_root_path(given: str) -> str:
    """Return the root path without a slash at its end. Raises ValueError for one that no proxy could use."""
    path = given.rstrip("/")
    if not path:
        return ""
    if not ROOT_PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise ValueError(
            f"TRAINKIT_ROOT_PATH is {given!r}; it may be a path such as /trainkit, of letters, digits, . _ ~ -"
        )
    if path.split("/")[1] in RESERVED:
        raise ValueError(f"TRAINKIT_ROOT_PATH is {given!r}; the service has a path of that name. Choose another.")
    return path


def _last(headers: Headers, name: bytes) -> bytes:
    """Return the value that the nearest proxy has set or added."""
    values = [value for found, value in headers if found == name]
    return values[-1].rpartition(b",")[2].strip() if values else b""


def _location(value: bytes, scope: Scope, root_path: str) -> bytes:
    """Return the address below the root path. The framework writes its redirects with the host of the request."""
    parts = urlsplit(value.decode("latin-1"))
    host = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
    if (parts.netloc and parts.netloc != host) or not parts.path.startswith("/"):
        return value
    return f"{root_path}{parts._replace(scheme='', netloc='').geturl()}".encode("latin-1")


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address
