"""Reading archives as a stream of regular files. Nothing is extracted to disk, so nothing can climb out.

Links, devices, absolute and climbing names, encrypted entries, duplicates and bombs are refused, each by name.
"""

from __future__ import annotations

import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from trainkit.data.errors import DataError, refuse
from trainkit.data.tars import is_tar, opened
from trainkit.data.text import printable
from trainkit.data.zips import ENCRYPTED, Bundle, infos

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
IGNORED = re.compile(r"(?:^|/)(?:__MACOSX|\.DS_Store|Thumbs\.db|desktop\.ini|Icon\ufffd|\._[^/]*)(?:/|$)")
"""What file managers leave behind; macOS's icon file ends in a carriage return."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One regular file of an archive or folder."""

    name: str
    """Path with forward slashes, relative and normalised."""
    data: bytes


@dataclass(frozen=True, slots=True)
class File:
    """One regular file that has not been read yet."""

    name: str
    size: int
    """Bytes, as its header says."""
    read: Callable[[], bytes]


def is_archive(path: Path) -> bool:
    """Whether the file is a zip or a (compressed) tar."""
    return zipfile.is_zipfile(path) or _is_tar(path)


def is_gzip(path: Path) -> bool:
    """Whether the file begins as gzip does; a tar.gz does too."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _is_tar(path: Path) -> bool:
    try:
        return is_tar(path)
    except UNREADABLE:
        return False


def names(path: Path, most: int = 200_000) -> list[str]:
    """Names of the regular files, without reading them where the format allows."""
    if path.is_dir():
        return [file.relative_to(path).as_posix() for file in sorted(path.rglob("*")) if file.is_file()][:most]
    found: list[str] = []
    try:
        if zipfile.is_zipfile(path):
            return [info.filename for info in infos(path) if not info.is_dir()][:most]
        with opened(path, _allowed(path)) as bundle:
            for member in _members(bundle, path):
                if member.isfile():
                    found.append(member.name)
        return found[:most]
    except DataError:
        raise
    except UNREADABLE as error:
        raise damaged(path, error, after=printable(found[-1]) if found else "") from None


def damaged(path: Path, error: Exception, after: str = "") -> DataError:
    """The archive itself cannot be read, `after` the entry that was read last."""
    hint = "Make the archive again, and check that the upload was complete."
    last = f" (at or after {after!r})" if after else ""
    message = f"the archive cannot be read: {printable(str(error)) or type(error).__name__}{last}"
    return refuse("damaged_archive", message, path.name, hint)


def entries(path: Path) -> Iterator[Entry]:
    """Every regular file of a folder, zip or tar, in the archive's order. Raises DataError naming the entry."""
    for file in files(path):
        yield Entry(file.name, file.read())


def random_access(path: Path) -> bool:
    """Whether `files` may be read in any order, and by processes forked after they were listed."""
    return path.is_dir() or zipfile.is_zipfile(path)


def files(path: Path) -> Iterator[File]:
    """As `entries`, but each is read when asked for: those of a tar before the next one is taken."""
    source = _folder(path) if path.is_dir() else _zip(path) if zipfile.is_zipfile(path) else _tar(path)
    seen: set[str] = set()
    total = 0
    for number, file in enumerate(source):
        if number >= MOST_ENTRIES:
            raise refuse("too_many_entries", f"more than {MOST_ENTRIES} files", path.name, "Split the dataset.")
        total += file.size
        if total > MOST_BYTES:
            raise refuse("too_large", f"more than {MOST_BYTES} bytes come out", path.name, "Split the dataset.")
        if file.name in seen:
            raise refuse("duplicate_entry", "this name stands twice in the archive", file.name, "Keep one of them.")
        seen.add(file.name)
        if not IGNORED.search(file.name):
            yield file


def safe_name(name: str) -> str:
    """The name, normalised and printable. Raises DataError for one that points outside."""
    plain = printable(name.replace("\\", "/"))
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    if "\x00" in name or not parts or len(plain.encode()) > MOST_NAME:
        raise refuse("bad_name", "the entry has no usable name", ascii(name[:100]), "Rename it.")
    if plain.startswith("/") or ".." in parts or (len(plain) > 1 and plain[1] == ":"):
        raise refuse(
            "unsafe_name", "the entry's path points outside the archive", printable(name)[:300], "Make it relative."
        )
    return "/".join(parts)


def suffix(name: str) -> str:
    """`.png` of `A/b.PNG`; empty without one. As in pathlib, which takes ten times as long."""
    last = name[name.rfind("/") + 1 :].lower()
    dot = last.rfind(".")
    return last[dot:] if 0 < dot < len(last) - 1 else ""


def _folder(path: Path) -> Iterator[File]:
    for file in sorted(path.rglob("*")):
        name = printable(file.relative_to(path).as_posix())
        if file.is_symlink():
            raise refuse("link", "links are not read", name, "Copy the file instead.")
        if file.is_file():
            yield File(name, file.stat().st_size, file.read_bytes)


def _zip(path: Path) -> Iterator[File]:
    try:
        listed = infos(path)
        bundle = Bundle(path)
        for info in listed:
            if info.is_dir():
                continue
            name = safe_name(info.filename)
            # the high half of external_attr is the Unix mode: 0xA000 a link, the others devices, pipes and sockets
            if info.external_attr >> 16 & 0xF000 in (0xA000, 0x2000, 0x6000, 0x1000, 0xC000):
                raise refuse("link", "links and devices are not read", name, "Put the file itself in.")
            if info.flag_bits & ENCRYPTED:
                raise refuse("encrypted", "the entry is encrypted", name, "Make the archive without a password.")
            # the announced size binds: reading stops there
            size = info.file_size
            if size > MOST_ENTRY_BYTES or (size > RATIO_FROM and size > RATIO * max(1, info.compress_size)):
                raise _bomb(name)
            yield File(name, size, bundle.reader(info, name))
    except DataError:
        raise
    except UNREADABLE as error:
        raise damaged(path, error) from None


def _tar(path: Path) -> Iterator[File]:
    last = ""
    try:
        with opened(path, _allowed(path)) as bundle:
            for member in _members(bundle, path):
                if member.isdir():
                    continue
                last = name = safe_name(member.name)
                if not member.isreg() or member.issparse():
                    what = "sparse files" if member.issparse() else "links and devices"
                    raise refuse("link", f"{what} are not read", name, "Put the file itself in.")
                file = bundle.extractfile(member)
                if file is not None:
                    yield File(name, member.size, partial(bounded, file, name, member.size))
    except DataError:
        raise
    except UNREADABLE as error:
        raise damaged(path, error, after=last) from None


def _allowed(path: Path) -> int:
    return max(RATIO_FROM, RATIO * path.stat().st_size)


def _members(bundle: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """The members in order; a bomb is refused by what its headers announce, before anything is unpacked."""
    allowed = _allowed(path)
    for member in bundle:
        if member.offset_data + member.size > allowed:
            raise _bomb(printable(member.name[:300]))
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
