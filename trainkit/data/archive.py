"""Archives (zip, tar) and folders as streams of regular files; nothing is extracted to disk.

Links, devices, unsafe names, encrypted and duplicate entries, and decompression bombs are refused, each by name.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from trainkit.data.errors import DataError, data_error
from trainkit.data.limits import limits
from trainkit.data.reasons import RefusedArchiveError, damage_reason
from trainkit.data.text import printable
from trainkit.data.zips import ENCRYPTED, ZipReader, zip_entries

MOST_ENTRIES = 2_000_000
MOST_NAME = 4096
"""Bytes of a name in UTF-8."""
MOST_BYTES = 200 * 2**30
MOST_ENTRY_BYTES = 8 * 2**30
RATIO, RATIO_FROM = 200, 10 * 2**20
"""Refuse more than 200 bytes out of one byte in, once 10 MiB have come out."""
UNREADABLE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    IndexError,
    OverflowError,
    RuntimeError,
)
"""What the standard library's readers raise on damaged archives (NotImplementedError is a RuntimeError)."""
ZSTD_WINDOW = 2**27
"""Largest window (bytes) a zstandard file may ask memory for: that of `zstd --long`."""
IGNORED = re.compile(r"(?:^|/)(?:__MACOSX|\.DS_Store|Thumbs\.db|desktop\.ini|Icon\ufffd|\._[^/]*)(?:/|$)")
"""Files that file managers leave behind; the name of macOS's icon file ends in a carriage return."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file of an archive or folder, with its data."""

    name: str
    """Path with forward slashes, relative and normalised."""
    data: bytes


@dataclass(frozen=True, slots=True)
class File:
    """A regular file of an archive or folder that is read on demand."""

    name: str
    size: int
    """Bytes, from the header."""
    read: Callable[[], bytes]


def is_archive(path: Path) -> bool:
    """Return whether the file is a zip or a (compressed) tar."""
    return zipfile.is_zipfile(path) or _is_readable_tar(path)


def is_gzip(path: Path) -> bool:
    """Return whether the file begins with the gzip magic; so does a tar.gz."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _is_readable_tar(path: Path) -> bool:
    try:
        return _is_tar(path)
    except UNREADABLE:
        return False


def names(path: Path, most: int = 200_000) -> list[str]:
    """Return up to `most` names of regular files."""
    if path.is_dir():
        return [file.relative_to(path).as_posix() for file in sorted(path.rglob("*")) if file.is_file()][:most]
    found: list[str] = []
    try:
        if zipfile.is_zipfile(path):
            return [info.filename for info in zip_entries(path) if not info.is_dir()][:most]
        with _open_tar(path, _max_unpacked(path)) as bundle:
            for member in _members(bundle, path):
                if member.isfile():
                    found.append(member.name)
        return found[:most]
    except DataError:
        raise
    except UNREADABLE as error:
        raise damaged_archive(path, error, after=printable(found[-1]) if found else "") from None


def damaged_archive(path: Path, error: Exception, after: str = "") -> DataError:
    """Return the error of an archive that cannot be read; `after` is the last entry that was read."""
    hint = "Create the archive again, and check that the upload was complete."
    last = f" (at or after {after!r})" if after else ""
    message = f"the archive cannot be read: {damage_reason(error)}{last}"
    return data_error("damaged_archive", message, path.name, hint)


def entries(path: Path) -> Iterator[Entry]:
    """Yield every regular file of a folder, zip or tar, in order. Raises DataError naming the entry."""
    for file in files(path):
        yield Entry(file.name, file.read())


def random_access(path: Path) -> bool:
    """Return whether `files` may be read in any order, and by processes that are forked after listing them."""
    return path.is_dir() or zipfile.is_zipfile(path)


def files(path: Path) -> Iterator[File]:
    """Yield every regular file, read on demand; a file of a tar must be read before the next one is taken."""
    source = _folder(path) if path.is_dir() else _zip(path) if zipfile.is_zipfile(path) else _tar(path)
    seen: set[str] = set()
    total = 0
    for number, file in enumerate(source):
        if number >= MOST_ENTRIES:
            raise data_error(
                "too_many_entries", f"the archive holds more than {MOST_ENTRIES} files", path.name, "Split the dataset."
            )
        total += file.size
        if total > MOST_BYTES:
            raise data_error(
                "too_large", f"the archive unpacks to more than {MOST_BYTES} bytes", path.name, "Split the dataset."
            )
        if file.name in seen:
            raise data_error(
                "duplicate_entry", "the archive holds two entries of this name", file.name, "Keep one of them."
            )
        seen.add(file.name)
        if not IGNORED.search(file.name):
            yield file


def safe_name(name: str) -> str:
    """Return the name, normalised and printable. Raises DataError for a name that points outside the archive."""
    plain = printable(name.replace("\\", "/"))
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    if "\x00" in name or not parts or len(plain.encode()) > MOST_NAME:
        raise data_error("bad_name", "the entry has no valid name", ascii(name[:100]), "Rename the entry.")
    if plain.startswith("/") or ".." in parts or (len(plain) > 1 and plain[1] == ":"):
        raise data_error(
            "unsafe_name", "the entry's path points outside the archive", printable(name)[:300], "Use relative paths."
        )
    return "/".join(parts)


def suffix(name: str) -> str:
    """Return `.png` for `A/b.PNG`, empty without a suffix: like pathlib, in a tenth of the time."""
    last = name[name.rfind("/") + 1 :].lower()
    dot = last.rfind(".")
    return last[dot:] if 0 < dot < len(last) - 1 else ""


def _folder(path: Path) -> Iterator[File]:
    for file in sorted(path.rglob("*")):
        name = printable(file.relative_to(path).as_posix())
        if file.is_symlink():
            raise data_error("link", "the entry is a link, which is not read", name, "Copy the file instead.")
        if file.is_file():
            yield File(name, file.stat().st_size, file.read_bytes)


def _zip(path: Path) -> Iterator[File]:
    try:
        listed = zip_entries(path)
        bundle = ZipReader(path)
        for info in listed:
            if info.is_dir():
                continue
            name = safe_name(info.filename)
            # the high half of external_attr is the Unix mode: 0xA000 a link, the others devices, pipes and sockets
            if info.external_attr >> 16 & 0xF000 in (0xA000, 0x2000, 0x6000, 0x1000, 0xC000):
                raise data_error(
                    "link", "the entry is a link or a device, which is not read", name, "Add the file itself."
                )
            if info.flag_bits & ENCRYPTED:
                raise data_error("encrypted", "the entry is encrypted", name, "Create the archive without a password.")
            # the announced size is a limit: reading stops there
            size = info.file_size
            if size > MOST_ENTRY_BYTES or (size > RATIO_FROM and size > RATIO * max(1, info.compress_size)):
                raise _bomb_error(name)
            yield File(name, size, bundle.reader(info, name))
    except DataError:
        raise
    except UNREADABLE as error:
        raise damaged_archive(path, error) from None


def _tar(path: Path) -> Iterator[File]:
    last = ""
    try:
        with _open_tar(path, _max_unpacked(path)) as bundle:
            for member in _members(bundle, path):
                if member.isdir():
                    continue
                last = name = safe_name(member.name)
                if not member.isreg() or member.issparse():
                    what = "a sparse file" if member.issparse() else "a link or a device"
                    raise data_error("link", f"the entry is {what}, which is not read", name, "Add the file itself.")
                file = bundle.extractfile(member)
                if file is not None:
                    yield File(name, member.size, partial(read_bounded, file, name, member.size))
    except DataError:
        raise
    except UNREADABLE as error:
        raise damaged_archive(path, error, after=last) from None


def _max_unpacked(path: Path) -> int:
    return max(RATIO_FROM, RATIO * path.stat().st_size)


def _members(bundle: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the members in order; a bomb is refused by the sizes in its headers, before anything is unpacked."""
    allowed = _max_unpacked(path)
    for member in bundle:
        if member.offset_data + member.size > allowed:
            raise _bomb_error(printable(member.name[:300]))
        yield member
        # tarfile keeps every member in memory
        bundle.members = []  # type: ignore[attr-defined]


def read_bounded(file: Any, name: str, packed: int) -> bytes:
    """Return the entry's bytes, counted while reading: the size in the header may be wrong."""
    return b"".join(chunks_bounded(file, name, packed))


def chunks_bounded(file: Any, name: str, packed: int) -> Iterator[bytes]:
    """Yield the entry's bytes in chunks, counted. A file packed twice is held to the ratio of the outer file."""
    source = limits().source_bytes
    packed = packed if source is None else min(packed, source)
    total = 0
    while chunk := file.read(1 << 20):
        total += len(chunk)
        if total > MOST_ENTRY_BYTES or (total > RATIO_FROM and total > RATIO * max(1, packed)):
            raise _bomb_error(name)
        yield chunk


def _bomb_error(name: str) -> DataError:
    return data_error(
        "bomb", f"the entry unpacks to more than {RATIO} times its size", name, "Store it with less compression."
    )


@contextmanager
def _open_decompressed(path: Path) -> Iterator[Any]:
    """Open the file as a stream of its decompressed bytes."""
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
            yield _ZstandardStream(file)
        else:
            yield file


class _ZstandardStream:
    """The content of a zstandard file; its errors are raised as tar errors."""

    def __init__(self, file: Any) -> None:
        try:
            import zstandard
        except ImportError:
            raise RefusedArchiveError('reading zstandard needs the package "zstandard": install it') from None
        self._error = zstandard.ZstdError
        decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        self._stream = decompressor.stream_reader(file, read_across_frames=True, closefd=False)

    def read(self, count: int) -> bytes:
        try:
            return self._stream.read(count)
        except self._error:
            raise RefusedArchiveError("its zstandard data are damaged or cut off") from None


class _LimitedStream:
    """A stream that raises an error after `allowed` bytes."""

    def __init__(self, stream: Any, allowed: int) -> None:
        self._stream = stream
        self._left = allowed

    def read(self, count: int) -> bytes:
        data = cast(bytes, self._stream.read(count))
        self._left -= len(data)
        if self._left < 0:
            raise RefusedArchiveError("the archive unpacks to far more than its size")
        return data


class _Member(tarfile.TarInfo):
    """An entry's header. A tar without its end mark is refused: cut between two entries, it would be a smaller archive."""

    @classmethod
    def fromtarfile(cls, bundle: tarfile.TarFile) -> _Member:
        """Read the next header."""
        try:
            return super().fromtarfile(bundle)
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            if bundle.offset:
                raise RefusedArchiveError("it is cut off: the mark at its end is missing") from None
            raise


@contextmanager
def _open_tar(path: Path, allowed: int) -> Iterator[tarfile.TarFile]:
    """Open a tar as a stream of members; at most `allowed` bytes are unpacked."""
    with _open_decompressed(path) as stream:
        counted: Any = _LimitedStream(stream, allowed)
        with tarfile.open(fileobj=counted, mode="r|", tarinfo=_Member) as bundle:
            yield bundle
            # tarfile stops at the end mark; the compression has a checksum after it
            while counted.read(1 << 16):
                pass


def _is_tar(path: Path) -> bool:
    """Return whether the decompressed bytes begin with a tar header or are an empty tar. Raises errors of decompressors."""
    with _open_decompressed(path) as stream:
        block = b""
        while len(block) < tarfile.BLOCKSIZE and (more := stream.read(tarfile.BLOCKSIZE - len(block))):
            block += more
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        return "end of file" in str(error) and len(block) == tarfile.BLOCKSIZE
    return True
