"""Mail by the installation's SMTP server, and which addresses may get some."""

from __future__ import annotations

import re
import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

from service.settings import Settings
from service.webhooks.target_policy import TargetRefused

MAILTO = "mailto:"
MAX_RECIPIENTS = 10
SECONDS = 5.0
"""For each answer of the server; a mail takes about eight."""
ADDRESS = re.compile(
    r"[A-Za-z0-9_+~=/'#&*-]{1,64}(\.[A-Za-z0-9_+~=/'#&*-]{1,64})*@([A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,63}"
)
PORTS = {"smtp": 587, "smtps": 465, "smtp+plain": 25}


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is handed over, as whom, and from which address."""

    scheme: str
    host: str
    port: int
    username: str | None
    password: str | None
    sender: str

    @classmethod
    def of(cls, settings: Settings) -> MailServer | None:
        """Return the server of the settings, None without one. Raises ValueError for a malformed one."""
        if settings.smtp_url is None:
            return None
        try:
            parts = urlsplit(settings.smtp_url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if host is None or parts.scheme not in PORTS:
            # the value holds a password: it is not shown
            raise ValueError("TRAINKIT_SMTP_URL is not smtp://, smtps:// or smtp+plain:// with a host")
        if not settings.mail_from or not ADDRESS.fullmatch(settings.mail_from):
            raise ValueError(f"TRAINKIT_MAIL_FROM is {settings.mail_from!r}; TRAINKIT_SMTP_URL needs one address there")
        username, password = (unquote(part) if part else None for part in (parts.username, parts.password))
        return cls(parts.scheme, host, port or PORTS[parts.scheme], username, password, settings.mail_from)

    def send(self, mail: EmailMessage) -> str:
        """Hand a mail over; returns what is to be told of it. Raises OSError and smtplib.SMTPException.

        With `smtp` the server must offer STARTTLS with a valid certificate: nothing is sent in clear instead.
        """
        tls = ssl.create_default_context()
        if self.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(self.host, self.port, timeout=SECONDS, context=tls)
        else:
            server = smtplib.SMTP(self.host, self.port, timeout=SECONDS)
        with server:
            if self.scheme == "smtp":
                server.starttls(context=tls)
            if self.username is not None:
                server.login(self.username, self.password or "")
            refused = server.send_message(mail)
        return f"accepted, but for {', '.join(sorted(refused))}" if refused else "accepted"


def recipients_of(url: str) -> list[str]:
    """Return the addresses of `mailto:a@example.org,b@example.org`. Raises TargetRefused."""
    addresses = [address.strip() for address in url.removeprefix(MAILTO).split(",")]
    for address in addresses:
        if not ADDRESS.fullmatch(address) or len(address) > 254:
            hint = "Write it as mailto:ann@example.org,bob@example.org, without headers (?subject=...)."
            raise TargetRefused("bad_address", f"{address[:80]!r} is not an address that can be mailed to", hint)
    if len(addresses) > MAX_RECIPIENTS:
        raise TargetRefused("too_many_addresses", f"{len(addresses)} addresses; a webhook has at most {MAX_RECIPIENTS}")
    return addresses


def check_recipients(settings: Settings, url: str) -> None:
    """Check that the addresses may get mail from this service. Raises TargetRefused."""
    if MailServer.of(settings) is None:
        raise TargetRefused("no_mail", "this service sends no mail", "The operator sets TRAINKIT_SMTP_URL.")
    for address in recipients_of(url):
        domain = address.rpartition("@")[2].lower()
        if settings.mail_domains and domain not in settings.mail_domains:
            hint = "The operator can allow its domain: TRAINKIT_MAIL_DOMAINS."
            raise TargetRefused("domain_not_allowed", f"mail to {address!r} is not allowed", hint)


def mail_host(url: str) -> str:
    """Return what failures are counted by: the domain of the first address."""
    return "mail:" + recipients_of(url)[0].rpartition("@")[2].lower()
