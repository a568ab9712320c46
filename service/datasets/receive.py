"""Receiving bytes: streamed to storage while hashed, in constant memory; a broken upload leaves nothing behind."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread

from service.errors import Problem
from service.limits import too_large
from service.storage import Storage

BUFFER = 4 << 20


@dataclass(frozen=True, slots=True)
class Received:
    """Bytes that lie in a temporary file, fsynced."""

    part: Path
    sha256: str
    bytes: int


class Receiver:
    """Writes chunks to one temporary file and hashes them, a few MiB at a time in a thread."""

    def __init__(self, storage: Storage, limit: int) -> None:
        self.part, self.limit, self.bytes = storage.new_part(), limit, 0
        self._hash = hashlib.sha256()
        self._file: BinaryIO = self.part.open("xb")

    async def take(self, chunks: AsyncIterator[bytes]) -> None:
        """Write everything that comes. Raises a 413 problem beyond the limit."""
        buffer = bytearray()
        async for chunk in chunks:
            buffer += chunk
            if self.bytes + len(buffer) > self.limit:
                raise too_large(self.limit)
            if len(buffer) >= BUFFER:
                await to_thread.run_sync(self._write, bytes(buffer))
                buffer.clear()
        if buffer:
            await to_thread.run_sync(self._write, bytes(buffer))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.bytes += len(data)

    def finish(self) -> Received:
        """Flush to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return Received(self.part, self._hash.hexdigest(), self.bytes)

    def discard(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        self.part.unlink(missing_ok=True)


def check_digest(header: str | None, received: Received) -> None:
    """Compare with `Content-Digest: sha-256=:<base64>:` (RFC 9530), where the client sent one."""
    if header is None:
        return
    match = re.search(r"sha-256=:([A-Za-z0-9+/=]+):", header)
    if match is None:
        raise Problem(422, "digest_unknown", "Content-Digest must hold sha-256=:<base64>:, or be left out.")
    try:
        wanted = base64.b64decode(match.group(1), validate=True).hex()
    except binascii.Error:
        raise Problem(422, "digest_unknown", "The sha-256 in Content-Digest is not base64.") from None
    if wanted != received.sha256:
        detail = f"The bytes that came have SHA-256 {received.sha256}, not {wanted}: send them again."
        raise Problem(422, "digest_mismatch", detail)
