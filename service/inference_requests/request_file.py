"""The body of a request that a worker answers: small ones in memory, large ones as a file that the worker reads.

In the API's memory, and as a row of the database, each copy of a large one would cost as much again: its parts and their
sum, the driver's, the database's own. A file that a killed process leaves is removed with other unfinished ones.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import anyio
from anyio import to_thread
from fastapi import Request

from service.body_limits import BODY_BYTES
from service.storage import Storage

WRITE_BYTES = 1 << 20
"""A thread writes so many at once."""


@dataclass(frozen=True, slots=True)
class ReceivedBody:
    """A body. `start` is all of it, or of a large one more than BODY_BYTES of it, and then `file` has the whole."""

    start: bytes
    file: Path | None = None


@asynccontextmanager
async def received_body(request: Request, storage: Storage) -> AsyncIterator[ReceivedBody]:
    """Receive the body of a request. Within the block its file exists."""
    buffer, start, part, writer = bytearray(), b"", None, None
    try:
        async for chunk in request.stream():
            buffer += chunk
            if len(buffer) > BODY_BYTES and writer is None:
                start = bytes(buffer)
                part = storage.new_part()
                writer = await to_thread.run_sync(part.open, "wb")
            if writer is not None and len(buffer) >= WRITE_BYTES:
                buffer = await to_thread.run_sync(_write, writer, buffer)
        if writer is None:
            start = bytes(buffer)
        else:
            await to_thread.run_sync(_write, writer, buffer)
            await to_thread.run_sync(writer.close)
        del buffer
        yield ReceivedBody(start, part)
    finally:
        if writer is not None and part is not None:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(_remove, writer, part)


def _write(writer: BinaryIO, data: bytearray) -> bytearray:
    writer.write(data)
    return bytearray()


def _remove(writer: BinaryIO, part: Path) -> None:
    writer.close()
    part.unlink(missing_ok=True)
