"""Files and folders as they are uploaded. The same folder always gives the same bytes, on every machine."""

from __future__ import annotations

import hashlib
import re
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BLOCK = 1 << 20
FIXED_TIME = (1980, 1, 1, 0, 0, 0)
"""What the zip says of every file: its own time would make other bytes of the same content."""
MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class UploadSource:
    """A file that is read for an upload."""

    path: Path
    filename: str
    name: str
    """What its dataset is called when the caller says nothing."""
    size: int
    sha256: str

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes from an offset on."""
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(size)


@contextmanager
def upload_source(path: str | Path) -> Iterator[UploadSource]:
    """A file as it is, or a folder as a zip that exists within the block. Raises OSError and ValueError."""
    given = Path(path).expanduser()
    if not given.is_dir():
        yield _source(given, given.name, default_name(given.name.split(".")[0]))
        return
    folder = given.resolve()
    with tempfile.NamedTemporaryFile(prefix="trainkit-", suffix=".zip") as file:
        zip_folder(folder, Path(file.name))
        yield _source(Path(file.name), f"{folder.name}.zip", default_name(folder.name))


def _source(path: Path, filename: str, name: str) -> UploadSource:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    if size == 0:
        raise ValueError(f"{path} is empty: there is nothing to upload.")
    return UploadSource(path, filename, name, size, digest)


def default_name(text: str) -> str:
    """Return the nearest text that may name a dataset."""
    name = re.sub(r"[\x00-\x1f\x7f/\\@:]+", "-", text).strip()[:MAX_NAME].strip()
    return name if name not in ("", ".", "..") else "dataset"


def zip_folder(folder: Path, target: Path) -> None:
    """Write the files of a folder into a zip: by name, without times and owners, not compressed.

    Compression would give other bytes with another version of its library, and images are compressed already. Hidden
    files and what systems leave in folders (`.DS_Store`, `__MACOSX`) are left out. Raises ValueError for an empty folder.
    """
    files = sorted((path.relative_to(folder).as_posix(), path) for path in _files(folder))
    if not files:
        raise ValueError(f"The folder {folder} holds no files: there is nothing to upload.")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files:
            entry = zipfile.ZipInfo(name, FIXED_TIME)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            entry.file_size = path.stat().st_size  # says in time whether it needs the format of large files
            with path.open("rb") as source, archive.open(entry, "w") as sink:
                while block := source.read(BLOCK):
                    sink.write(block)


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name == "__MACOSX":
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        elif path.is_file():
            yield path
