"""What every request's head must keep to: one allowed host, an address of bounded length, a body that is not encoded."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import HttpProblem, answer
from service.http_server.limits import HEALTH_PATHS, MAX_URL_BYTES

MAX_PARAMETERS = 100
HOST = re.compile(rb"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?P<port>:\d{1,5})?")


class RequestHeaders:
    """Refuses a request by its head alone, before a key is looked at and a body is read.

    `allowed_hosts` are the service's own names (`host_pattern`). Without them any name is taken, but by a connection
    over loopback: a web page whose name was made to point there must not reach it.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str] = ()) -> None:
        self.app, self._allowed = app, tuple(allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (problem := self._problem(scope)) is not None:
            await answer(problem, scope)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _problem(self, scope: Scope) -> HttpProblem | None:
        query: bytes = scope["query_string"]
        if len(scope.get("raw_path") or b"") + len(query) > MAX_URL_BYTES:
            return HttpProblem(414, "url_too_long", f"The address has more than {MAX_URL_BYTES} bytes. Shorten it.")
        if query.count(b"&") >= MAX_PARAMETERS:
            detail = f"The query has more than {MAX_PARAMETERS} parameters. Send fewer."
            return HttpProblem(422, "too_many_parameters", detail)
        if "\x00" in scope["path"] or b"%00" in query:
            return HttpProblem(422, "not_text", "The address holds a NUL character. Leave it out.")
        if sum(name == b"authorization" for name, _ in scope["headers"]) > 1:
            # a proxy may have looked at the other one
            return HttpProblem(400, "bad_http", "The header Authorization is there twice. Send one key.")
        return self._host_problem(scope) or _body_problem(scope["headers"])

    def _host_problem(self, scope: Scope) -> HttpProblem | None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) > 1 or (not hosts and scope["http_version"] == "1.1"):
            return HttpProblem(400, "bad_host", f"A request has one header Host, not {len(hosts)}.")
        match = HOST.fullmatch(hosts[0]) if hosts else None
        if hosts and match is None:
            return HttpProblem(400, "bad_host", "The header Host is no name or address. Send the service's own.")
        name = match["name"].decode().lower().rstrip(".") if match else ""
        if self._allowed:
            if any(
                allowed in ("*", name) or (allowed[:1] == "." and name.endswith(allowed)) for allowed in self._allowed
            ):
                return None
        elif (
            not name or name == "localhost" or _is_loopback(name) or not _is_loopback((scope.get("server") or [""])[0])
        ):
            return None
        if scope["path"] in HEALTH_PATHS:
            return None  # load balancers and supervisors ask by address, and learn nothing that matters
        detail = f"This service does not answer to the host {name[:80]!r}. Add it to TRAINKIT_ALLOWED_HOSTS."
        return HttpProblem(421, "unknown_host", detail)


def _body_problem(headers: Iterable[tuple[bytes, bytes]]) -> HttpProblem | None:
    for name, value in headers:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            detail = (
                "Bodies are not decompressed. Send it without Content-Encoding; a dataset may be a .gz or .zip file."
            )
            return HttpProblem(415, "content_encoding", detail, headers={"Accept-Encoding": "identity"})
        if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            return HttpProblem(400, "transfer_encoding", "The only Transfer-Encoding that is read is chunked.")
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_pattern(name: str) -> str:
    """Return a name, `.example.com` for all below a domain, or `*` for any, in lower case. Raises ValueError for another."""
    plain = name.removeprefix("*") if name.startswith("*.") else name
    match = HOST.fullmatch(plain.removeprefix(".").encode("ascii", "replace"))
    if plain != "*" and (match is None or match["port"]):
        raise ValueError(f"TRAINKIT_ALLOWED_HOSTS holds {name!r}; it takes names without a port, .example.com, or *")
    return plain.lower()
