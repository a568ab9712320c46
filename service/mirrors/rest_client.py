"""Requests to a tracking server, each in bounded time, to an address that was checked (as webhooks are sent)."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import httpcore

from service.webhooks.target_policy import TargetPolicy, TargetRefused
from service.webhooks.transport import CONNECT_SECONDS, PinnedBackend, tls_context
from trainkit.version import __version__

REQUEST_SECONDS = 20.0
"""From the first packet to the last byte read; an upload has more, by its size."""
UPLOAD_BYTES_PER_SECOND = 2**20
"""The slowest upload that is waited for."""
READ_BYTES = 2**20
ERROR_CHARACTERS = 500
TRY_AGAIN = frozenset({401, 403, 404, 408, 425, 429})
"""Statuses below 500 that another day, or another token or address, may change."""


class MirrorError(Exception):
    """A request to a mirror has failed; the message is shown to clients."""

    def __init__(self, message: str, *, status: int | None = None, code: str = "", final: bool = False) -> None:
        self.status, self.code, self.final = status, code, final
        """`final`: the same request would fail again."""
        super().__init__(message[:ERROR_CHARACTERS])

    @property
    def is_outage(self) -> bool:
        """Whether the server does not answer, or not well: others need not try it now."""
        return self.status is None or self.status >= 500


def upload_seconds(size: int) -> float:
    """Return how long an upload of that size may take."""
    return REQUEST_SECONDS + size / UPLOAD_BYTES_PER_SECOND


class RestClient:
    """Sends JSON and files below one base URL."""

    def __init__(self, policy: TargetPolicy, base_url: str, username: str | None, token: str | None) -> None:
        self._policy, self._base_url = policy, base_url.rstrip("/")
        self._headers = {"Authorization": _authorization(username, token)} if token else {}

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Send JSON and return the JSON that comes back. Raises MirrorError."""
        content = None if body is None else json.dumps(body, allow_nan=False).encode()
        headers = {"Content-Type": "application/json"} if body is not None else {}
        target = f"{path}?{urlencode(query)}" if query else path
        status, answer = self._send(method, target, headers, content, REQUEST_SECONDS)
        try:
            document = json.loads(answer or b"{}")
        except ValueError:
            document = None
        if 200 <= status < 300 and isinstance(document, dict):
            return document
        raise _problem(method, path, status, document, answer)

    def put_file(self, path: str, parts: Iterator[bytes], size: int) -> None:
        """Upload a file of that size. Raises MirrorError."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        status, answer = self._send("PUT", quote(path), headers, parts, upload_seconds(size))
        if not 200 <= status < 300:
            raise _problem("PUT", path, status, None, answer)

    def _send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        content: bytes | Iterator[bytes] | None,
        seconds: float,
    ) -> tuple[int, bytes]:
        try:
            target = self._policy.check(self._base_url + path)
        except TargetRefused as error:
            raise MirrorError(f"nothing was sent: {error}") from None
        everywhere = {
            "Host": target.authority,
            "User-Agent": f"trainkit/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        sent = [*everywhere.items(), *self._headers.items(), *headers.items()]
        url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
        timeouts = {"connect": CONNECT_SECONDS, "read": seconds, "write": seconds}
        pinned, answer = PinnedBackend(target.addresses, time.monotonic() + seconds), bytearray()
        try:
            with (
                httpcore.ConnectionPool(ssl_context=tls_context(), network_backend=pinned) as pool,
                pool.stream(method, url, headers=sent, content=content, extensions={"timeout": timeouts}) as response,
            ):
                for part in response.iter_stream():
                    answer += part
                    if len(answer) > READ_BYTES:
                        raise MirrorError(f"the answer to {method} {path[:80]} is longer than {READ_BYTES} bytes")
                return response.status, bytes(answer)
        except httpcore.ConnectTimeout:
            raise MirrorError(f"no connection within {CONNECT_SECONDS:.0f} s") from None
        except httpcore.TimeoutException:
            raise MirrorError(
                f"no complete answer to {method} {path.partition('?')[0][:80]} within {seconds:.0f} s"
            ) from None
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            what = "no connection" if isinstance(error, httpcore.ConnectError) else "the connection broke"
            raise MirrorError(f"{what}: {error}" if str(error) else what) from None


def _authorization(username: str | None, token: str) -> str:
    if username is None:
        return f"Bearer {token}"
    return "Basic " + b64encode(f"{username}:{token}".encode()).decode()


def _problem(method: str, path: str, status: int, document: Any, answer: bytes) -> MirrorError:
    """MLflow's errors are `{error_code, message}`; a proxy before it may answer anything."""
    fields = document if isinstance(document, dict) else {}
    code, text = (
        str(fields.get("error_code") or ""),
        str(fields.get("message") or answer[:300].decode(errors="replace")),
    )
    text = text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    if 300 <= status < 400:
        text = "redirects are not followed"
    message = f"{method} {path} was answered {status} {code}: {text}"
    # 404 with MLflow's own code is about a run or experiment; without it the URL may be another server's
    final = 400 <= status < 500 and (status not in TRY_AGAIN or code == "RESOURCE_DOES_NOT_EXIST")
    return MirrorError(message, status=status, code=code, final=final)
