"""Reading archives as a stream of regular files. Nothing is extracted to disk, so nothing can climb out.

Links, devices, absolute and climbing names, encrypted entries, duplicates and bombs are refused, each by name.
"""

from __future__ import annotations

import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from trainkit.data.errors import DataError, refuse

MOST_ENTRIES = 2_000_000
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
IGNORED_NAMES = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True, slots=True)
class Entry:
    """One regular file of an archive or folder."""

    name: str
    """Path with forward slashes, relative and normalised."""
    data: bytes


def is_archive(path: Path) -> bool:
    """Whether the file is a zip or a (compressed) tar."""
    return zipfile.is_zipfile(path) or _is_tar(path)


def is_gzip(path: Path) -> bool:
    """Whether the file begins as gzip does; a tar.gz does too."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except UNREADABLE:
        return False


def names(path: Path, most: int = 200_000) -> list[str]:
    """Names of the regular files, without reading them where the format allows."""
    if path.is_dir():
        return [file.relative_to(path).as_posix() for file in sorted(path.rglob("*")) if file.is_file()][:most]
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as bundle:
                return [info.filename for info in bundle.infolist() if not info.is_dir()][:most]
        except UNREADABLE as error:
            raise damaged(path, error) from None
    try:
        with tarfile.open(path, "r|*") as bundle:
            return [member.name for member in _members(bundle, path) if member.isfile()][:most]
    except DataError:
        raise
    except UNREADABLE as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> DataError:
    """The archive itself cannot be read."""
    hint = "Make the archive again, and check that the upload was complete."
    return refuse("damaged_archive", f"the archive cannot be read: {error}", path.name, hint)


def entries(path: Path) -> Iterator[Entry]:
    """Every regular file of a folder, zip or tar, in the archive's order. Raises DataError naming the entry."""
    if path.is_dir():
        source = _folder(path)
    elif zipfile.is_zipfile(path):
        source = _zip(path)
    else:
        source = _tar(path)
    seen: set[str] = set()
    total = 0
    for number, entry in enumerate(source):
        if number >= MOST_ENTRIES:
            raise refuse("too_many_entries", f"more than {MOST_ENTRIES} files", path.name, "Split the dataset.")
        total += len(entry.data)
        if total > MOST_BYTES:
            raise refuse("too_large", f"more than {MOST_BYTES} bytes come out", path.name, "Split the dataset.")
        if entry.name in seen:
            raise refuse("duplicate_entry", "this name stands twice in the archive", entry.name, "Keep one of them.")
        seen.add(entry.name)
        if not any(part in IGNORED_NAMES or part.startswith("._") for part in entry.name.split("/")):
            yield entry


def safe_name(name: str) -> str:
    """The name, normalised. Raises DataError for one that points outside."""
    plain = name.replace("\\", "/")
    path = PurePosixPath(plain)
    if "\x00" in name or not plain.strip("/") or len(plain.encode("utf-8", "replace")) > 4096:
        raise refuse("bad_name", "the entry has no usable name", repr(name[:100]), "Rename it.")
    if plain.startswith("/") or ".." in path.parts or (len(plain) > 1 and plain[1] == ":"):
        raise refuse("unsafe_name", "the entry's path points outside the archive", name[:300], "Make it relative.")
    return str(path)


def _folder(path: Path) -> Iterator[Entry]:
    for file in sorted(path.rglob("*")):
        if file.is_symlink():
            raise refuse("link", "links are not read", file.relative_to(path).as_posix(), "Copy the file instead.")
        if file.is_file():
            yield Entry(file.relative_to(path).as_posix(), file.read_bytes())


def _zip(path: Path) -> Iterator[Entry]:
    try:
        with zipfile.ZipFile(path) as bundle:
            infos = bundle.infolist()
            _refuse_overlaps(infos)
            for info in infos:
                if info.is_dir():
                    continue
                name = safe_name(info.filename)
                # the high half of external_attr is the Unix mode: 0xA000 a link, the others devices and pipes
                if info.external_attr >> 16 & 0xF000 in (0xA000, 0x2000, 0x6000, 0x1000):
                    raise refuse("link", "links and devices are not read", name, "Put the file itself in.")
                if info.flag_bits & 1:
                    raise refuse("encrypted", "the entry is encrypted", name, "Make the archive without a password.")
                with bundle.open(info) as file:
                    yield Entry(name, bounded(file, name, info.compress_size))
    except DataError:
        raise
    except UNREADABLE as error:
        raise damaged(path, error) from None


def _refuse_overlaps(infos: list[zipfile.ZipInfo]) -> None:
    end, previous = -1, ""
    for info in sorted(infos, key=lambda i: i.header_offset):
        if info.header_offset < end:
            message = f"its bytes overlap those of {previous!r}, as in a zip bomb"
            raise refuse("overlapping_entries", message, info.filename[:300], "Make the archive again.")
        end, previous = info.header_offset + 30 + info.compress_size, info.filename[:100]


def _tar(path: Path) -> Iterator[Entry]:
    try:
        with tarfile.open(path, "r|*") as bundle:
            for member in _members(bundle, path):
                if member.isdir():
                    continue
                name = safe_name(member.name)
                if not member.isreg():
                    raise refuse("link", "links and devices are not read", name, "Put the file itself in.")
                file = bundle.extractfile(member)
                if file is not None:
                    yield Entry(name, bounded(file, name, member.size))
    except DataError:
        raise
    except UNREADABLE as error:
        raise damaged(path, error) from None


def _members(bundle: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """The members in order; a bomb is refused by what its headers announce, before anything is unpacked."""
    allowed = max(RATIO_FROM, RATIO * path.stat().st_size)
    for member in bundle:
        if member.offset_data + member.size > allowed:
            raise _bomb(member.name[:300])
        yield member
        # tarfile remembers every member it has passed
        bundle.members = []  # type: ignore[attr-defined]


def bounded(file: Any, name: str, packed: int) -> bytes:
    """The entry's bytes, counted while they come: headers lie."""
    parts, total = [], 0
    while chunk := file.read(1 << 20):
        total += len(chunk)
        if total > MOST_ENTRY_BYTES or (total > RATIO_FROM and total > RATIO * max(1, packed)):
            raise _bomb(name)
        parts.append(chunk)
    return b"".join(parts)


def _bomb(name: str) -> DataError:
    return refuse("bomb", f"it unpacks to more than {RATIO} times its size", name, "Store it with less compression.")
