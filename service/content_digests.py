"""SHA-256 of files that are served: as `sha256` in lists, and as `Repr-Digest` of downloads (RFC 9530)."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import lru_cache
from pathlib import Path

MOST_BYTES = 8 << 20
"""Of a file that is read for its hash when it is asked for: some milliseconds, once in each process."""
BLOCK = 1 << 20


def sha256_of_file(path: Path, head: bytes = b"", offset: int = 0) -> str | None:
    """Return the hash of `head` and what the file holds from `offset` on; None of more than MOST_BYTES.

    Stored files are never written again: a hash is kept for as long as size and time of change stay.
    """
    stat = path.stat()
    if len(head) + stat.st_size - offset > MOST_BYTES:
        return None
    return _read(path, head, offset, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _read(path: Path, head: bytes, offset: int, size: int, changed: int) -> str:
    digest = hashlib.sha256(head)
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_of(content: bytes) -> str:
    """Return the hash of bytes at hand."""
    return hashlib.sha256(content).hexdigest()


def repr_digest(sha256: str | None) -> dict[str, str]:
    """Return the header of a hash; nothing without one. It is of the whole file, also where `Range` asks for a part."""
    return {} if sha256 is None else {"Repr-Digest": f"sha-256=:{b64encode(bytes.fromhex(sha256)).decode()}:"}
