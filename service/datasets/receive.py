"""Stream a request's bytes to storage and hash them, in constant memory; a broken upload leaves no file."""

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

from service.body_limits import too_large
from service.errors import HttpProblem
from service.load_shedding import leave_work
from service.problem_types import ProblemCode
from service.storage import Storage

BUFFER = 4 << 20


@dataclass(frozen=True, slots=True)
class Received:
    """Bytes in a temporary file, fsynced."""

    part: Path
    sha256: str
    bytes: int


class Receiver:
    """Writes chunks to one temporary file and hashes them, a few MiB at a time in a thread."""

    def __init__(self, storage: Storage, limit: int, refusal: HttpProblem | None = None) -> None:
        self.part, self.limit, self.bytes = storage.new_part(), limit, 0
        self._refusal = refusal or too_large(limit)
        self._hash = hashlib.sha256()
        self._file: BinaryIO = self.part.open("xb")

    async def take(self, chunks: AsyncIterator[bytes]) -> None:
        """Write all chunks. Raises the refusal, a 413 problem, beyond the limit."""
        leave_work()
        buffer = bytearray()
        async for chunk in chunks:
            buffer += chunk
            if self.bytes + len(buffer) > self.limit:
                raise self._refusal
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
        """Flush to disk and return what was received."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return Received(self.part, self._hash.hexdigest(), self.bytes)

    def discard(self) -> None:
        """Delete the temporary file, if `finish` or a caller has not moved it."""
        self._file.close()
        self.part.unlink(missing_ok=True)


def parse_digest(header: str | None) -> str | None:
    """Return the SHA-256 of `Content-Digest: sha-256=:<base64>:` (RFC 9530). Raises a 400 problem for anything else."""
    if header is None:
        return None
    match = re.search(r"(?:^|[,\s])sha-256=:([A-Za-z0-9+/=]+):", header)
    try:
        digest = base64.b64decode(match.group(1), validate=True) if match else b""
    except binascii.Error:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise _digest(
            "digest_unknown", "holds no SHA-256.", "Send sha-256=:<base64 of the raw digest>:, or leave it out."
        )
    return digest.hex()


def check_digest(expected: str | None, received: Received) -> None:
    """Raise a 400 problem when the received bytes have another hash than the client declared."""
    if expected is not None and expected != received.sha256:
        message = f"the received bytes have SHA-256 {received.sha256}, not {expected}; nothing was kept."
        raise _digest("digest_mismatch", message, "Send them again.")


def _digest(code: ProblemCode, message: str, hint: str) -> HttpProblem:
    error = {"pointer": "header/Content-Digest", "code": code, "message": message, "hint": hint}
    return HttpProblem(400, code, f"Content-Digest: {message} {hint}", errors=[error])
