"""Response headers that tell a browser what it may do with an answer, on every answer, errors too."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

DASHBOARD, DOCS = re.compile(r"/ui(/.*)?", re.DOTALL), re.compile(r"/docs(/.*)?", re.DOTALL)
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The policy of answers that are data: nothing in them may load, run or be framed."""
STATIC_FILES = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
DOCUMENTATION = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ALWAYS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
PROBLEM_HEADERS = (("Content-Security-Policy", NOTHING), *ALWAYS, ("Cache-Control", "no-store"))
"""What an answer has that never reaches the application."""
PRIVATE, REVALIDATED = (b"cache-control", b"no-store"), (b"cache-control", b"private, no-cache")
OF_CALLER = (b"vary", b"Authorization, Cookie")
"""A browser that goes back uses what it has kept without asking again: not for another key, or for none."""
HSTS = (b"strict-transport-security", b"max-age=31536000")


class SecurityHeaders:
    """Adds the headers of the kind of answer: data, the dashboard's files, or the documentation."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._data, self._files, self._docs = (_headers(policy) for policy in (NOTHING, STATIC_FILES, DOCUMENTATION))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_file = DASHBOARD.fullmatch(scope["path"]) is not None
        is_docs = DOCS.fullmatch(scope["path"]) is not None

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = self._files if is_file else self._docs if is_docs else self._data
                present = {name.lower() for name, _ in message["headers"]}
                headers = [*message["headers"], *(one for one in added if one[0] not in present)]
                if scope["scheme"] == "https":
                    headers.append(HSTS)
                if b"cache-control" not in present and not is_file:
                    headers.append(REVALIDATED if b"etag" in present else PRIVATE)
                if b"etag" in present and not is_file and not is_docs:
                    headers.append(OF_CALLER)
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_guarded)


def _headers(policy: str) -> list[tuple[bytes, bytes]]:
    pairs = (("Content-Security-Policy", policy), *ALWAYS)
    return [(name.lower().encode(), value.encode()) for name, value in pairs]
