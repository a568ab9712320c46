"""ETag of every JSON answer to GET, and 304 for who has it already (RFC 9110, 13.1.2).

A tag is the hash of the answer, so that no write can change an answer and keep its tag, whatever table it went to and
however close in time it was to another. A route that knows its tag before its answer, such as the metric log's, sets it
itself and is spared the reading.
"""

from __future__ import annotations

import hashlib
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import HttpProblem

TAG = re.compile(r'(?:W/)?("[^"]*")')
JSON = "application/json"
OF_A_BODY = (
    "content-length",
    "content-type",
    "content-encoding",
    "content-disposition",
    "accept-ranges",
    "last-modified",
)


def tag_matches(if_none_match: str | None, tag: str) -> bool:
    """Whether the header names the tag: `*`, or a list of tags, weak or not."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or tag.removeprefix("W/") in TAG.findall(if_none_match)


def require_match(if_match: str | None, tag: str, subject: str) -> None:
    """Compare `If-Match` with the ETag of what is there. Raises a 412 problem where it names another one."""
    if if_match is not None and not tag_matches(if_match, tag):
        detail = f"The {subject} is not as {if_match[:80]} shows it any more; nothing was changed. Read it again."
        raise HttpProblem(412, "changed_meanwhile", detail, headers={"ETag": tag})


def tagged(response: Response) -> Response:
    """Return the answer with the ETag that it gets anyway, for a route that compares it first."""
    response.headers["ETag"] = tag_of(bytes(response.body))
    return response


def tag_of(body: bytes) -> str:
    """Return the weak ETag of an answer."""
    return f'W/"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'


class ConditionalRequests:
    """Tags answers that come in one piece; compares the tag, or the route's own, with `If-None-Match`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        answer = _Answer(Headers(scope=scope).get("if-none-match"), send)
        await self.app(scope, receive, answer.send)


class _Answer:
    def __init__(self, if_none_match: str | None, send: Send) -> None:
        self._if_none_match, self._send = if_none_match, send
        self._start: Message | None = None
        """Held back until the body, of which the tag is made."""
        self._is_known = False
        """304 is sent, and no body follows."""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self._start is not None:
            start, self._start = self._start, None
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                MutableHeaders(scope=start)["ETag"] = tag_of(message.get("body", b""))
            await self._compare(start)
            await self._pass(message)
        else:
            await self._pass(message)

    async def _begin(self, message: Message) -> None:
        headers = Headers(scope=message)
        if message["status"] == 200 and "etag" in headers:
            await self._compare(message)
        elif message["status"] == 200 and headers.get("content-type", "").startswith(JSON):
            self._start = message
        else:
            await self._send(message)

    async def _compare(self, start: Message) -> None:
        headers = MutableHeaders(scope=start)
        tag = headers.get("etag")
        if tag is not None:
            headers.setdefault("Cache-Control", "no-cache")
            if tag_matches(self._if_none_match, tag):
                start["status"], self._is_known = 304, True
                for name in OF_A_BODY:
                    del headers[name]
        await self._send(start)

    async def _pass(self, message: Message) -> None:
        if not self._is_known:
            await self._send(message)
        elif not message.get("more_body", False):
            await self._send({"type": "http.response.body", "body": b""})
