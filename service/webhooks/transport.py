"""One POST, in bounded time, to an address that was checked: no second resolution, no redirect, proxy or cookie."""

from __future__ import annotations

import logging
import smtplib
import ssl
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import httpcore
import httpx

from service.settings import Settings
from service.webhooks.delivery_queue import ClaimedDelivery, PostResult
from service.webhooks.mail import MailServer, recipients_of
from service.webhooks.notifications import mail_of, slack_body
from service.webhooks.signing import sign
from service.webhooks.target_policy import TargetPolicy, TargetRefused, WebhookTarget
from trainkit.version import __version__

log = logging.getLogger(__name__)
CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 15.0
"""From the first packet to the last byte read."""
READ_BYTES = 1 << 16
KEPT_CHARACTERS = 1000
ERROR_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Channels:
    """What messages for people need beside an address."""

    mail: MailServer | None = None
    public_url: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Channels:
        """Read the settings. Raises ValueError for a malformed mail server."""
        return cls(MailServer.of(settings), settings.public_url)


def send(policy: TargetPolicy, claimed: ClaimedDelivery, channels: Channels) -> PostResult:
    """Post or mail a message. Never raises: what went wrong is in the result."""
    started = time.monotonic()
    if claimed.format == "email":
        return _mail(claimed, channels, started)
    try:
        body = slack_body(claimed, channels.public_url) if claimed.format == "slack" else claimed.body.encode()
        status, answer = _post(policy.check(claimed.url), claimed, body)
    except TargetRefused as error:
        return PostResult(None, f"not sent: {error}", None, time.monotonic() - started)
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
        message = f"{_describe(error)}: {error}" if str(error) else _describe(error)
        return PostResult(None, message[:ERROR_CHARACTERS], None, time.monotonic() - started)
    except Exception as error:
        # a defect counts as a failed attempt, so that no message is tried for ever
        log.exception("delivery=%s cannot be sent", claimed.claim.id)
        return PostResult(None, f"not sent: {type(error).__name__}", None, time.monotonic() - started)
    problem = None
    if 300 <= status < 400:
        problem = f"the receiver answered {status}: redirects are not followed"
    elif not 200 <= status < 300:
        problem = f"the receiver answered {status}"
    text = answer.decode(errors="replace")[:KEPT_CHARACTERS].replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return PostResult(status, problem, text, time.monotonic() - started)


def _describe(error: Exception) -> str:
    if isinstance(error, httpcore.ConnectTimeout):
        return f"no connection within {CONNECT_SECONDS:.0f} s"
    if isinstance(error, httpcore.TimeoutException):
        return f"no complete answer within {TOTAL_SECONDS:.0f} s"
    return "no connection" if isinstance(error, httpcore.ConnectError) else "the connection broke"


def _mail(claimed: ClaimedDelivery, channels: Channels, started: float) -> PostResult:
    """Hand a mail over; the server's answer is the response."""
    status, problem, response = None, None, None
    try:
        if channels.mail is None:
            raise TargetRefused("no_mail", "this service sends no mail: TRAINKIT_SMTP_URL is not set")
        recipients = recipients_of(claimed.url)
        response = channels.mail.send(mail_of(claimed, channels.mail.sender, recipients, channels.public_url))
    except TargetRefused as error:
        problem = f"not sent: {error}"
    except smtplib.SMTPRecipientsRefused as error:
        status, text = next(iter(error.recipients.values()))
        problem = f"the mail server refused every address: {status} {_decoded(text)}"
    except smtplib.SMTPResponseException as error:
        status, problem = error.smtp_code, f"the mail server answered {error.smtp_code} {_decoded(error.smtp_error)}"
    except (OSError, smtplib.SMTPException) as error:
        problem = f"the mail server: {error or type(error).__name__}"
    except Exception as error:
        log.exception("delivery=%s cannot be mailed", claimed.claim.id)
        problem = f"not sent: {type(error).__name__}"
    return PostResult(status, problem and problem[:ERROR_CHARACTERS], response, time.monotonic() - started)


def _decoded(text: bytes | str) -> str:
    shown = text.decode(errors="replace") if isinstance(text, bytes) else text
    return shown.replace("\x00", "\N{REPLACEMENT CHARACTER}")


def _post(target: WebhookTarget, claimed: ClaimedDelivery, body: bytes) -> tuple[int, bytes]:
    """Return (status, first bytes of the response)."""
    headers = {
        "Host": target.authority,
        "Content-Type": "application/json",
        "User-Agent": f"trainkit/{__version__}",
        "Accept-Encoding": "identity",
        "Connection": "close",
        **sign(claimed.secrets, claimed.claim.id, int(claimed.at.timestamp()), body),
    }
    url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
    timeouts = {"connect": CONNECT_SECONDS, "read": TOTAL_SECONDS, "write": TOTAL_SECONDS}
    pinned = PinnedBackend(target.addresses, time.monotonic() + TOTAL_SECONDS)
    answer = bytearray()
    with (
        httpcore.ConnectionPool(ssl_context=tls_context(), network_backend=pinned) as pool,
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
            # the status was received, and it decides
            if not 200 <= response.status < 300:
                raise
        return response.status, bytes(answer[:READ_BYTES])


class PinnedBackend(httpcore.NetworkBackend):
    """Connects to the checked addresses, whatever host is asked for; TLS and `Host` still use the host's name."""

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
        """Connect to the first address that answers; each gets a share of the time that is left."""
        end = time.monotonic() + CONNECT_SECONDS
        failed: Exception = httpcore.ConnectError("no address")
        for index, address in enumerate(self._addresses):
            share = (end - time.monotonic()) / (len(self._addresses) - index)
            if share <= 0:
                break
            try:
                stream = self._plain.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
            else:
                return DeadlineStream(stream, self._deadline)
        raise failed


class DeadlineStream(httpcore.NetworkStream):
    """A stream that raises after the deadline, so that a receiver that sends a byte a second cannot hold a sender."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def _remaining(self, error: type[httpcore.TimeoutException]) -> float:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise error
        return remaining

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._remaining(httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._remaining(httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        timeout_left = min(CONNECT_SECONDS, self._remaining(httpcore.ConnectTimeout))
        return DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, timeout_left), self._deadline)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


@cache
def tls_context() -> ssl.SSLContext:
    """Return the TLS context; it always verifies certificates, by the usual authorities or those in `SSL_CERT_FILE`."""
    return httpx.create_ssl_context()
