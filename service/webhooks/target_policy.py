"""Allowed targets of webhooks: addresses on the public internet, and those that the operator allows.

The host is resolved once, every address is checked, and the connection goes to a checked address (transport.py), so
that DNS rebinding between check and connection has no effect.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
RESOLVE_SECONDS = 5.0
MAX_URL_LENGTH = 2000
FIRST_UNPRIVILEGED_PORT = 1024
"""Lower ports belong to other services than HTTP: mail, SSH, DNS."""
HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
# IANA's special-purpose registries (RFC 6890), multicast, and the one public address that is a cloud's own inside (Azure)
NOT_PUBLIC_4 = [
    IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
    )
]
# 2001::/23 holds Teredo, whose addresses embed two others
NOT_PUBLIC_6 = [IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "3fff::/20")]
PUBLIC_6 = IPv6Network("2000::/3")
NAT64 = IPv6Network("64:ff9b::/96")


class TargetRefused(Exception):  # noqa: N818 - a validation result, not a failure
    """A URL that is not allowed; `code` for programs, the text for people."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        self.code, self.hint = code, hint
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """The parts of a URL, and the checked addresses of its host."""

    scheme: str
    host: str
    port: int
    path: str
    addresses: tuple[str, ...]

    @property
    def authority(self) -> str:
        """The `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _default_port(self.scheme) else f"{host}:{self.port}"


def resolve_host(host: str, port: int) -> list[str]:
    """Return all addresses of a host name. Raises OSError, also when the resolver takes longer than RESOLVE_SECONDS."""
    found: list[str] = []
    failed: list[OSError] = []

    def resolve() -> None:
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError:
            failed.append(OSError("not a host name"))
        except OSError as error:
            failed.append(error)
        else:
            found.extend(str(entry[4][0]) for entry in entries)

    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(RESOLVE_SECONDS)
    if thread.is_alive():
        raise OSError(f"no answer within {RESOLVE_SECONDS:.0f} s")
    if failed:
        raise failed[0]
    return list(dict.fromkeys(found))


def is_public(address: Address) -> bool:
    """Whether it is one host of the public internet. Addresses that embed another are as public as that one."""
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in NOT_PUBLIC_4)
    embedded = _embedded(address)
    if embedded is not None:
        return is_public(embedded)
    return address.is_global and address in PUBLIC_6 and not any(address in network for network in NOT_PUBLIC_6)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


class TargetPolicy:
    """Checks URLs against the rules; the operator's `allow` list adds host names, addresses and networks."""

    def __init__(self, allow: Iterable[str] = (), resolve: Callable[[str, int], Sequence[str]] | None = None) -> None:
        self._resolve = resolve or resolve_host
        self._names: set[str] = set()
        self._networks: list[Network] = []
        for entry in allow:
            try:
                self._networks.append(ip_network(entry))
            except ValueError:
                if not HOST.fullmatch(entry):
                    raise ValueError(f"TRAINKIT_WEBHOOK_ALLOW: {entry!r} is no host name, address or network") from None
                self._names.add(entry.lower())

    def check(self, url: str) -> WebhookTarget:
        """Parse the URL, resolve its host and check every address. Raises TargetRefused."""
        scheme, host, port, path = _parts(url)
        try:
            found = [ip_address(address) for address in self._resolve(host, port)]
        except OSError as error:
            hint = "Check the name, or try again later."
            message = f"the host {host!r} cannot be resolved: {error.strerror or error}"
            raise TargetRefused("unknown_host", message, hint) from None
        if not found:
            raise TargetRefused("unknown_host", f"the host {host!r} has no address")
        allowed = host in self._names or all(self._allows(address) for address in found)
        if not allowed and not all(is_public(address) or self._allows(address) for address in found):
            message = f"the host {host!r} has an address that is not on the public internet"
            raise TargetRefused("not_public", message, "The operator can allow it: TRAINKIT_WEBHOOK_ALLOW.")
        if not allowed and scheme != "https":
            raise TargetRefused("not_https", "the URL does not begin with https://", "Messages are sent over TLS only.")
        if not allowed and port < FIRST_UNPRIVILEGED_PORT and port not in (80, 443):
            message = f"port {port} belongs to another kind of service"
            raise TargetRefused("bad_port", message, f"Use 443, or a port from {FIRST_UNPRIVILEGED_PORT} on.")
        return WebhookTarget(scheme, host, port, path, tuple(str(address) for address in found))

    def _allows(self, address: Address) -> bool:
        embedded = _embedded(address) if isinstance(address, IPv6Address) else None
        return any(one in network for network in self._networks for one in (address, embedded) if one is not None)


def host_of(url: str) -> str:
    """Return `host:port` of a URL that was checked, in small letters: what its attempts are counted by."""
    _, host, port, _ = _parts(url)
    return f"{host.rstrip('.')}:{port}"


EXAMPLE = "Write it as https://example.org/hook."


def _parts(url: str) -> tuple[str, str, int, str]:
    """(scheme, host, port, path with query). Raises TargetRefused."""
    if len(url) > MAX_URL_LENGTH or not re.fullmatch(r"[\x21-\x7e]+", url) or "\\" in url:
        hint = "Percent-encode other characters, and write an international host name as xn--..."
        raise TargetRefused(
            "bad_url", f"a URL is up to {MAX_URL_LENGTH} printable ASCII characters without spaces", hint
        )
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
        literal = ip_address(host) if ":" in host and "%" not in host else None
    except ValueError as error:
        raise TargetRefused("bad_url", f"this is not a URL: {error}", EXAMPLE) from None
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https"):
        raise TargetRefused("bad_url", "the URL does not begin with https://", EXAMPLE)
    if "@" in parts.netloc:
        raise TargetRefused(
            "credentials_in_url", "the URL holds a user name or password", "Verify the signature instead."
        )
    if "#" in url:
        raise TargetRefused("bad_url", "the URL has a fragment (#...), which is never sent", "Leave it out.")
    if literal is None and not HOST.fullmatch(host):
        raise TargetRefused("bad_url", f"{host[:80]!r} is not a host", EXAMPLE)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return scheme, host, _default_port(scheme) if port is None else port, path


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80
