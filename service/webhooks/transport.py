"""One POST, in bounded time, to an address that was checked: no second look-up, no redirect, no proxy, no cookie."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Iterable, Sequence
from functools import cache

import httpcore
import httpx

from service.webhooks.delivery_queue import Claimed, Outcome
from service.webhooks.signing import sign
from service.webhooks.target_policy import Refused, Target, Targets
from trainkit.version import __version__

log = logging.getLogger(__name__)
CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 15.0
"""From the first packet to the last byte that is read, however slowly they come."""
READ_BYTES = 1 << 16
KEPT_CHARACTERS = 1000
ERROR_CHARACTERS = 500


def send(targets: Targets, claimed: Claimed) -> Outcome:
    """Post a message. Whatever goes wrong is in the outcome."""
    begun = time.monotonic()
    try:
        status, answer = _post(targets.check(claimed.url), claimed)
    except Refused as error:
        return Outcome(None, f"not sent: {error}", None, time.monotonic() - begun)
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
        said = f"{_named(error)}: {error}" if str(error) else _named(error)
        return Outcome(None, said[:ERROR_CHARACTERS], None, time.monotonic() - begun)
    except Exception as error:
        # a defect counts as a failed attempt too: a message must not be tried for ever
        log.exception("delivery=%s cannot be sent", claimed.delivery_id)
        return Outcome(None, f"not sent: {type(error).__name__}", None, time.monotonic() - begun)
    wrong = None
    if 300 <= status < 400:
        wrong = f"the receiver answered {status}: redirects are not followed"
    elif not 200 <= status < 300:
        wrong = f"the receiver answered {status}"
    text = answer.decode(errors="replace")[:KEPT_CHARACTERS].replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return Outcome(status, wrong, text, time.monotonic() - begun)


def _named(error: Exception) -> str:
    if isinstance(error, httpcore.ConnectTimeout):
        return f"no connection within {CONNECT_SECONDS:.0f} s"
    if isinstance(error, httpcore.TimeoutException):
        return f"no complete answer within {TOTAL_SECONDS:.0f} s"
    return "no connection" if isinstance(error, httpcore.ConnectError) else "the connection broke"


def _post(target: Target, claimed: Claimed) -> tuple[int, bytes]:
    """(status, the first bytes of the answer)."""
    body = claimed.body.encode()
    headers = {
        "Host": target.authority,
        "Content-Type": "application/json",
        "User-Agent": f"trainkit/{__version__}",
        "Accept-Encoding": "identity",
        "Connection": "close",
        **sign(claimed.secrets, claimed.delivery_id, int(claimed.at.timestamp()), body),
    }
    url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
    timeouts = {"connect": CONNECT_SECONDS, "read": TOTAL_SECONDS, "write": TOTAL_SECONDS}
    pinned = Pinned(target.addresses, time.monotonic() + TOTAL_SECONDS)
    answer = bytearray()
    with (
        httpcore.ConnectionPool(ssl_context=_tls(), network_backend=pinned) as pool,
        pool.stream(
            "POST", url, headers=list(headers.items()), content=body, extensions={"timeout": timeouts}
        ) as response,
    ):
        try:
            for part in response.iter_stream():
                answer += part
                if len(answer) >= READ_BYTES:
                    break
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError):
            # the status has come, and it is what counts
            if not 200 <= response.status < 300:
                raise
        return response.status, bytes(answer[:READ_BYTES])


class Pinned(httpcore.NetworkBackend):
    """Connects to the given addresses, whatever name is asked for; TLS and `Host` still go by the name."""

    def __init__(self, addresses: Sequence[str], deadline: float) -> None:
        self._addresses, self._deadline = addresses, deadline
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """The first address that answers; an address that is silent leaves time for the others."""
        end = time.monotonic() + CONNECT_SECONDS
        failed: Exception = httpcore.ConnectError("no address")
        for place, address in enumerate(self._addresses):
            share = (end - time.monotonic()) / (len(self._addresses) - place)
            if share <= 0:
                break
            try:
                stream = self._plain.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
            else:
                return Bounded(stream, self._deadline)
        raise failed


class Bounded(httpcore.NetworkStream):
    """A stream on which nothing happens after the deadline: a byte a second is no way to hold a sender."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def _left(self, error: type[httpcore.TimeoutException]) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise error
        return left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left(httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left(httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = min(CONNECT_SECONDS, self._left(httpcore.ConnectTimeout))
        return Bounded(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


@cache
def _tls() -> ssl.SSLContext:
    """Certificates are always verified: by the usual authorities, or those that `SSL_CERT_FILE` names."""
    return httpx.create_ssl_context()
