"""Tar archives, plain or compressed (gzip, bzip2, xz, zstandard), read once from front to back."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

ZSTD_WINDOW = 2**27
"""Largest window (bytes) a zstandard file may ask memory for: that of `zstd --long`."""


@contextmanager
def unpacked(path: Path) -> Iterator[Any]:
    """The file's bytes behind its compression, if it has one, as a readable stream."""
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        start = file.read(6)
        file.seek(0)
        if start[:2] == b"\x1f\x8b":
            yield stack.enter_context(gzip.GzipFile(fileobj=file))
        elif start[:3] == b"BZh":
            yield stack.enter_context(bz2.BZ2File(file))
        elif start == b"\xfd7zXZ\x00" or start[:3] == b"\x5d\x00\x00":
            yield stack.enter_context(lzma.LZMAFile(file))
        elif start[:4] == b"\x28\xb5\x2f\xfd":
            yield _Zstandard(file)
        else:
            yield file


class _Zstandard:
    """A zstandard file's content. Its errors become tar's, so that nobody else needs to know the package."""

    def __init__(self, file: Any) -> None:
        try:
            import zstandard
        except ImportError:
            raise tarfile.ReadError('reading zstandard needs the package "zstandard"') from None
        self._error = zstandard.ZstdError
        decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        self._stream = decompressor.stream_reader(file, read_across_frames=True, closefd=False)

    def read(self, count: int) -> bytes:
        try:
            return self._stream.read(count)
        except self._error as error:
            raise tarfile.ReadError(f"damaged zstandard data: {error}") from None


class _Counted:
    """A stream that ends in an error once more has come out of it than is allowed."""

    def __init__(self, stream: Any, allowed: int) -> None:
        self._stream = stream
        self._left = allowed

    def read(self, count: int) -> bytes:
        data = cast(bytes, self._stream.read(count))
        self._left -= len(data)
        if self._left < 0:
            raise tarfile.ReadError("it unpacks to far more than its size")
        return data


@contextmanager
def opened(path: Path, allowed: int) -> Iterator[tarfile.TarFile]:
    """The tar as a stream of members, of which at most `allowed` bytes are unpacked."""
    with unpacked(path) as stream:
        counted: Any = _Counted(stream, allowed)
        with tarfile.open(fileobj=counted, mode="r|") as bundle:
            yield bundle
            # tar stops at its own end mark: what compressed it has a checksum behind that
            while counted.read(1 << 16):
                pass


def is_tar(path: Path) -> bool:
    """Whether the (unpacked) bytes begin with a tar header, or are an empty tar. Raises what decompressors raise."""
    with unpacked(path) as stream:
        block = b""
        while len(block) < tarfile.BLOCKSIZE and (more := stream.read(tarfile.BLOCKSIZE - len(block))):
            block += more
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        return "end of file" in str(error) and len(block) == tarfile.BLOCKSIZE
    return True
