"""Write the body of one PATCH: append to the file, fsync every few MiB, then raise the offset in the database.

After a death at any point the file may be longer than the offset; the next writer truncates it to the offset.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import anyio
from anyio import to_thread
from sqlalchemy.orm import Session, sessionmaker
from starlette.types import Receive

from service.errors import BodyProblem, HttpProblem
from service.failpoints import fp
from service.leases import Claim
from service.load_shedding import leave_work
from service.uploads import repository
from service.uploads.metadata import ALGORITHMS, Checksum

FSYNC_BYTES = 4 << 20
"""A broken connection loses at most so many bytes, however large the client's chunks are."""
IDLE_SECONDS = 20.0
"""A client that sends nothing for so long loses the lock, so that another request can continue the upload."""
HASH_CHUNK = 8 << 20
MAX_RUNNING_HASHES = 1024
_running_hashes: OrderedDict[str, tuple[int, Any]] = OrderedDict()
"""Upload -> (bytes, SHA-256 of them), of uploads that this process has received from their first byte on."""


def locked_file(path: Path) -> BinaryIO | None:
    """Open the upload's file, created when missing, with an exclusive lock; None while another request holds it.

    The kernel releases the lock when its process dies, so that a restarted service can continue at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def busy() -> HttpProblem:
    """Return the 423 problem of an upload that another request writes to."""
    detail = (
        "Another request is writing to this upload. Ask for its offset with HEAD a little later, and continue there."
    )
    return HttpProblem(423, "upload_locked", detail, headers={"Retry-After": "1"})


@contextmanager
def suppress_slow_body() -> Iterator[None]:
    """A body that comes too slowly is one whose client says nothing more: what has come is kept."""
    try:
        yield
    except BodyProblem as error:
        if error.problem.status != 408:
            raise


@dataclass
class Writer:
    """The only writer of an upload; holds the file's lock until closed. `offset` bytes are on disk."""

    sessions: sessionmaker[Session]
    claim: Claim
    file: BinaryIO
    offset: int
    length: int | None
    limit: int
    keep_seconds: float
    checksum: Checksum | None = None
    complete: bool = False

    def __post_init__(self) -> None:
        # bytes beyond the offset were not fsynced by the writer that died
        os.ftruncate(self.file.fileno(), self.offset)
        self.file.seek(self.offset)
        self._end = self.offset
        hashed, running = _running_hashes.pop(self.claim.id, (0, None))
        self._hash = running if running is not None and hashed == self.offset else None
        if self.offset == 0:
            self._hash = hashlib.sha256()
        self._safe = self._hash.copy() if self._hash is not None else None
        self._sum = ALGORITHMS[self.checksum.algorithm]() if self.checksum else None

    async def take(self, receive: Receive) -> None:
        """Write a request's body. Bytes received before a disconnect are kept, unless a checksum was declared.

        Raises problems: 413 beyond the length or limit, 408 for an idle client, 460 for a wrong checksum, 423.
        """
        leave_work()
        buffer = bytearray()
        has_more, problem = True, None
        while has_more:
            message = None
            with anyio.move_on_after(IDLE_SECONDS), suppress_slow_body():
                message = await receive()
            if message is None or message["type"] == "http.disconnect":
                problem = _disconnected(idle=message is None)
                break
            buffer += message.get("body", b"")
            has_more = message.get("more_body", False)
            if self._end + len(buffer) > self._max_end():
                problem = self._too_long()
                buffer.clear()
                break
            if len(buffer) >= FSYNC_BYTES and has_more:
                await to_thread.run_sync(self._write, bytes(buffer))
                buffer.clear()
        if problem is not None and (self.checksum is not None or self._end == self.length):
            raise problem
        await to_thread.run_sync(self._conclude, bytes(buffer))
        if problem is not None and not self.complete:
            raise problem

    def expect(self, body: int | None) -> None:
        """Raise the 413 problem of a body whose declared size is too large."""
        if body is not None and self.offset + body > self._max_end():
            raise self._too_long()

    def _max_end(self) -> int:
        return self.limit if self.length is None else self.length

    def _too_long(self) -> HttpProblem:
        if self.length is None:
            detail = f"The upload may have at most {self.limit} bytes."
            return HttpProblem(413, "too_large", detail, limit_bytes=self.limit)
        detail = f"The body goes beyond the upload's {self.length} bytes (Upload-Length)."
        return HttpProblem(413, "beyond_length", detail, limit_bytes=self.length)

    def _write(self, data: bytes, *, last: bool = False) -> None:
        view = memoryview(data)
        while view:
            view = view[self.file.write(view) :]
        if self._hash is not None:
            self._hash.update(data)
        if self._sum is not None:
            self._sum.update(data)
        self._end += len(data)
        fp("upload_written")
        # the offset reaches the length only together with the hash: a reader that sees it sees a complete upload
        if self._sum is None and not last and self._end != self.length:
            self._advance()

    def _conclude(self, data: bytes) -> None:
        self._write(data, last=True)
        if self.checksum is not None and self._sum is not None and self._sum.digest() != self.checksum.digest:
            detail = f"The body's {self.checksum.algorithm} is {self._sum.hexdigest()}: nothing was kept."
            raise HttpProblem(460, "checksum_mismatch", f"{detail} Send it again from offset {self.offset}.")
        if self._end != self.length:
            self._advance()
            return
        os.fsync(self.file.fileno())
        sha256 = (self._hash or self._hash_file()).hexdigest()
        with self.sessions.begin() as session:
            if not repository.complete(session, self.claim, self._end, sha256):
                raise busy()
        self.offset, self.complete = self._end, True
        fp("upload_received")

    def _advance(self) -> None:
        if self._end == self.offset:
            return
        os.fsync(self.file.fileno())
        fp("upload_synced")
        with self.sessions.begin() as session:
            if not repository.advance(session, self.claim, self._end, self.keep_seconds):
                raise busy()
        self.offset, self._safe = self._end, self._hash.copy() if self._hash is not None else None
        fp("upload_advanced")

    def _hash_file(self) -> Any:
        """Hash the file of an upload that another process has begun: once, at the disk's speed."""
        digest = hashlib.sha256()
        self.file.seek(0)
        while chunk := self.file.read(HASH_CHUNK):
            digest.update(chunk)
        return digest

    def close(self) -> None:
        """Release the lock and keep the running hash for the next PATCH."""
        if not self.complete and self._safe is not None:
            _running_hashes[self.claim.id] = (self.offset, self._safe)
            while len(_running_hashes) > MAX_RUNNING_HASHES:
                _running_hashes.popitem(last=False)
        self.file.close()


def _disconnected(*, idle: bool) -> HttpProblem:
    if idle:
        detail = f"No bytes came for {IDLE_SECONDS:g} s; the bytes before are kept. Continue at the offset that HEAD returns."
        return HttpProblem(408, "upload_idle", detail, headers={"Connection": "close"})
    return HttpProblem(400, "disconnected", "The request ended before its last byte; the received bytes are kept.")
