"""A mail server on loopback (RFC 5321) for `smtplib`: STARTTLS, TLS from the start, AUTH PLAIN; keeps what it accepts."""

from __future__ import annotations

import base64
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path


@dataclass(frozen=True, slots=True)
class AcceptedMail:
    """A mail as it was handed over, and how."""

    sender: str
    recipients: tuple[str, ...]
    raw: bytes
    encrypted: bool
    login: str | None

    @property
    def message(self) -> EmailMessage:
        parsed = message_from_bytes(self.raw, policy=default)
        assert isinstance(parsed, EmailMessage)
        return parsed


@dataclass
class SmtpServer:
    """`refused` holds recipients that get 550; `data_answer` ends DATA."""

    port: int = 0
    mails: list[AcceptedMail] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    data_answer: str = "250 queued"
    offers_starttls: bool = True


class _Session(socketserver.StreamRequestHandler):
    """One connection; the server has `state`, `tls` and `from_start`."""

    def handle(self) -> None:
        self.encrypted, self.login = False, None
        state: SmtpServer = self.server.state  # type: ignore[attr-defined]
        if self.server.from_start:  # type: ignore[attr-defined]
            self._wrap()
        self._say("220 mail.example ESMTP")
        sender = ""
        recipients: list[str] = []
        while line := self.rfile.readline():
            text = line.decode().strip()
            verb, _, rest = text.partition(" ")
            match verb.upper():
                case "EHLO":
                    self._say("250-mail.example")
                    if state.offers_starttls and not self.encrypted:
                        self._say("250-STARTTLS")
                    self._say("250 AUTH PLAIN")
                case "STARTTLS":
                    self._say("220 go on")
                    self._wrap()
                case "AUTH":
                    user, password = base64.b64decode(rest.split()[1]).decode().split("\0")[1:]
                    self.login = f"{user}:{password}"
                    self._say("235 ok" if password == "p:w" else "535 no")
                case "MAIL":
                    sender, recipients = rest.partition("<")[2].partition(">")[0], []
                    self._say("250 ok")
                case "RCPT":
                    address = rest.partition("<")[2].partition(">")[0]
                    if address in state.refused:
                        self._say("550 no such mailbox")
                    else:
                        recipients.append(address)
                        self._say("250 ok")
                case "DATA":
                    self._say("354 go on")
                    lines = []
                    while (part := self.rfile.readline()) != b".\r\n":
                        lines.append(part[1:] if part.startswith(b"..") else part)
                    if state.data_answer.startswith("2"):
                        mail = (sender, tuple(recipients), b"".join(lines), self.encrypted, self.login)
                        state.mails.append(AcceptedMail(*mail))
                    self._say(state.data_answer)
                case "QUIT":
                    self._say("221 bye")
                    return
                case _:
                    self._say("250 ok")

    def _wrap(self) -> None:
        tls: ssl.SSLContext = self.server.tls  # type: ignore[attr-defined]
        self.request = tls.wrap_socket(self.request, server_side=True)
        self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)
        self.encrypted = True

    def _say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True

    def handle_error(self, *_: object) -> None:
        pass  # a client may refuse the certificate


@contextmanager
def smtp_server(certificate: Path, *, from_start: bool = False) -> Iterator[SmtpServer]:
    """A server that listens; `from_start`: TLS before the first line."""
    server, state = _Server(("127.0.0.1", 0), _Session), SmtpServer()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    for name, value in {"state": state, "tls": tls, "from_start": from_start}.items():
        setattr(server, name, value)
    state.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
