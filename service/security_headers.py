"""Response headers that tell a browser what it may do with an answer, on every answer, errors too."""

from __future__ import annotations

import base64
import hashlib
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

DOCS_PATH = "/docs"
STATIC_PATH = re.compile(r"/ui(/.*)?|/docs/.*", re.DOTALL)
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The policy of answers that are data: nothing in them may load, run or be framed."""
STATIC_FILES = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
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
HSTS = (b"strict-transport-security", b"max-age=31536000")
INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


class SecurityHeaders:
    """The outermost middleware. `docs_page` is the page of `/docs`, whose inline script is allowed by its hash."""

    def __init__(self, app: ASGIApp, docs_page: bytes = b"") -> None:
        self.app = app
        self._data, self._files, self._docs = (
            _headers(policy) for policy in (NOTHING, STATIC_FILES, docs_policy(docs_page))
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_file = STATIC_PATH.fullmatch(scope["path"]) is not None

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                is_docs = scope["path"] == DOCS_PATH and message["status"] == 200
                added = self._files if is_file else self._docs if is_docs else self._data
                present = {name.lower() for name, _ in message["headers"]}
                headers = [*message["headers"], *(one for one in added if one[0] not in present)]
                if scope["scheme"] == "https":
                    headers.append(HSTS)
                if b"cache-control" not in present and not is_file:
                    headers.append(REVALIDATED if b"etag" in present else PRIVATE)
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_guarded)


def docs_policy(page: bytes) -> str:
    """Return the policy of the interactive documentation, whose files come from the CDN that FastAPI names."""
    hashes = (base64.b64encode(hashlib.sha256(script).digest()).decode() for script in INLINE_SCRIPT.findall(page))
    scripts = " ".join(["https://cdn.jsdelivr.net", *(f"'sha256-{digest}'" for digest in hashes)])
    return (
        f"default-src 'none'; script-src {scripts}; style-src https://cdn.jsdelivr.net 'unsafe-inline'; "
        "img-src 'self' data: https://fastapi.tiangolo.com; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def _headers(policy: str) -> list[tuple[bytes, bytes]]:
    pairs = (("Content-Security-Policy", policy), *ALWAYS)
    return [(name.lower().encode(), value.encode()) for name, value in pairs]
