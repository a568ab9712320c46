"""Server-sent events from ready bytes. FastAPI's own would make two tasks and write the JSON anew for each reader."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

PING_SECONDS = 15.0
"""A comment after so long without news, so that nobody between takes the connection for dead."""
AWAY_SECONDS = 1.0
"""While the database is away a stream says nothing and goes on afterwards."""


EVENTS = "x-events"
"""Extension of the OpenAPI document: event of a stream -> its description, and the schema of its `data`, which is JSON.
`itemSchema` of OpenAPI 3.2 would say it; tools for 3.1 do not know that."""


def stream_of(events: Mapping[str, tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Return how OpenAPI shows the content of a stream: each event with its description and the schema of its data."""
    described = {name: {"description": text, "schema": schema} for name, (text, schema) in events.items()}
    text = f"Server-sent events: {', '.join(f'`{name}`' for name in events)}. `{EVENTS}` has the schema of each one's data."
    return {"text/event-stream": {"schema": {"type": "string", "description": text}, EVENTS: described}}


class EventStream(StreamingResponse):
    """The answer of a stream."""

    media_type = "text/event-stream"

    def __init__(self, messages: AsyncGenerator[bytes], status_code: int = 200) -> None:
        super().__init__(messages, status_code, {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._messages = messages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._messages):  # a reader who has gone is waited for no longer, from now on
            await super().__call__(scope, receive, send)
