"""SHA-256 of files that are served: as `sha256` in lists, and as `Repr-Digest` of downloads (RFC 9530).

Files are hashed where they are written and by housekeeping (`service/background/file_hashes.py`), never for a request.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from pathlib import Path

BLOCK = 1 << 20


def sha256_of_file(path: Path, head: bytes = b"", offset: int = 0) -> str:
    """Return the hash of `head` and what the file holds from `offset` on."""
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
