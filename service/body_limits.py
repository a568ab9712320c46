"""Bounds that every request keeps to before a route sees it: how much it may send, and no NUL where text is meant."""

from __future__ import annotations

import re

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import HttpProblem, answer

UPLOADS = re.compile(r"/v1/(datasets|uploads(/[^/]*)?)")
FORM_OVERHEAD = 1 << 20
"""What a multipart form may hold beside the file itself."""


class BodyTooLarge(HTTPException):
    """More came than was said."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, too_large(limit).detail)
        self.limit_bytes = limit


class Limits:
    """Refuses bodies beyond `max_body_bytes` (uploads: `max_upload_bytes`), said or sent, and NUL in the address."""

    def __init__(self, app: ASGIApp, max_body_bytes: int, max_upload_bytes: int) -> None:
        self.app, self.max_body_bytes, self.max_upload_bytes = app, max_body_bytes, max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
            refusal = HttpProblem(422, "not_text", "The address holds a NUL character.")
            await answer(refusal, scope)(scope, receive, send)
            return
        upload = UPLOADS.fullmatch(scope["path"])
        shown = self.max_upload_bytes if upload else self.max_body_bytes
        limit = shown + FORM_OVERHEAD if upload else shown
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and int(length[:20]) > limit:
            await answer(too_large(shown), scope)(scope, receive, send)
            return
        came = 0

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > limit:
                # a kind of exception that body parsers let through
                raise BodyTooLarge(shown)
            return message

        await self.app(scope, counted, send)


def too_large(limit: int) -> HttpProblem:
    """413 with the limit in it."""
    return HttpProblem(413, "too_large", f"The body may have at most {limit} bytes.", limit_bytes=limit)
