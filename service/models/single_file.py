"""One safetensors file of a model: the stored tensors, with the manifest in the file's metadata.

The tensors are sent from the stored file as they are. Only the header before them is written anew: offsets in it count from
its end. Source: the safetensors format, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from service.content_digests import repr_digest, sha256_of_file

LENGTH = 8
MAX_HEADER = 100_000_000
"""What readers of the format take."""
MEDIA_TYPE = "application/vnd.safetensors"


class DamagedFileError(ValueError):
    """A stored file that is not what it should be."""


@dataclass(frozen=True, slots=True)
class SingleFile:
    """A new header, and where the tensors lie that come after it."""

    header: bytes
    path: Path
    offset: int
    """Of the first tensor in the stored file."""
    stored_bytes: int

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self.header) + self.stored_bytes - self.offset

    def sha256(self) -> str:
        """Read the file and return the hash of the whole."""
        return sha256_of_file(self.path, self.header, self.offset)

    @property
    def etag(self) -> str:
        """A strong tag. The tensors of a model's folder never change, so it needs no reading of them."""
        identity = f"{self.path}\0{self.stored_bytes}\0".encode()
        return f'"{hashlib.blake2b(identity + self.header, digest_size=16).hexdigest()}"'


def single_file(folder: Path) -> SingleFile:
    """Return the file of a model's folder.

    Raises:
        OSError: a file is missing.
        DamagedFileError: `model.safetensors` has no header that can be read, or the manifest is too large for one.
    """
    manifest = (folder / "model.json").read_text(encoding="utf-8")
    path = folder / "model.safetensors"
    with path.open("rb") as file:
        stored_bytes = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(LENGTH), "little")
        if not 2 <= length <= min(MAX_HEADER, stored_bytes - LENGTH):
            raise DamagedFileError(f"a header of {length} bytes in a file of {stored_bytes}")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise DamagedFileError(f"the header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise DamagedFileError("the header is not an object")
    header["__metadata__"] = {**(header.get("__metadata__") or {}), "manifest": manifest}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH)  # readers map the tensors into memory, aligned
    if len(text) > MAX_HEADER:
        raise DamagedFileError(f"the manifest makes a header of {len(text)} bytes; readers take {MAX_HEADER}")
    return SingleFile(len(text).to_bytes(LENGTH, "little") + text, path, LENGTH + length, stored_bytes)


class SingleFileResponse(FileResponse):
    """Sends the file, or the part of it that `Range` names."""

    def __init__(self, file: SingleFile, filename: str, sha256: str | None, headers: Mapping[str, str]) -> None:
        stat = list(file.path.stat())
        stat[6] = file.size
        self.file = file
        super().__init__(
            file.path,
            media_type=MEDIA_TYPE,
            filename=filename,
            headers={"ETag": file.etag, **repr_digest(sha256), **headers},
            stat_result=os.stat_result(stat),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # no server may send the stored file by its path instead
        await super().__call__({**scope, "extensions": {}}, receive, send)

    @asynccontextmanager
    async def _open_file(self) -> AsyncIterator[Any]:
        async with await anyio.open_file(self.file.path, "rb") as stored:
            reader = _Reader(self.file, stored)
            await reader.seek(0)
            yield reader


class _Reader:
    """Reads the new header and then the stored tensors."""

    def __init__(self, file: SingleFile, stored: anyio.AsyncFile[bytes]) -> None:
        self._file, self._stored = file, stored
        self._position = 0

    async def seek(self, position: int) -> None:
        self._position = position
        beyond = max(0, position - len(self._file.header))
        await self._stored.seek(self._file.offset + beyond)

    async def read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer at the end only."""
        head = self._file.header[self._position : self._position + size]
        rest = await self._stored.read(size - len(head)) if len(head) < size else b""
        self._position += len(head) + len(rest)
        return head + rest
