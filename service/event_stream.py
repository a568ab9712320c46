"""Server-sent events from ready bytes. FastAPI's own would make two tasks and write the JSON anew for each reader."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

PING_SECONDS = 15.0
"""A comment after so long without news, so that nobody between takes the connection for dead."""
AWAY_SECONDS = 1.0
"""While the database is away a stream says nothing and goes on afterwards."""


class EventStream(StreamingResponse):
    """The answer of a stream."""

    media_type = "text/event-stream"

    def __init__(self, messages: AsyncGenerator[bytes], status_code: int = 200) -> None:
        super().__init__(messages, status_code, {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._messages = messages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._messages):  # a reader who has gone is waited for no longer, from now on
            await super().__call__(scope, receive, send)
