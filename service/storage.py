"""Files that all hosts share: uploads, prepared data, checkpoints, models. The server makes the keys, never users."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
import uuid
from pathlib import Path
from typing import BinaryIO, NamedTuple

from trainkit.files import sync_folder

KEY = re.compile(r"^[a-z]+(/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){1,4}$")

PART = re.compile(r"^[0-9a-f]{32}\.part$")


class StoredBytes(NamedTuple):
    """What a copied file holds."""

    bytes: int
    sha256: str


class Storage:
    """A folder. Every write lands whole or not at all: temporary name, fsync, rename."""

    def __init__(self, url: str) -> None:
        if "://" in url and not url.startswith("file:///"):
            raise ValueError(f"storage is a folder or file:///folder, not {url!r}")
        self.root = Path(url.removeprefix("file://")).expanduser().absolute()

    def local_path(self, key: str) -> Path:
        """Where the key's file or folder lies. Raises ValueError for anything but a server-made key."""
        if not KEY.fullmatch(key) or ".." in key:
            raise ValueError(f"not a storage key: {key!r}")
        return self.root / key

    def new_part(self) -> Path:
        """A fresh temporary path on the same file system as everything else."""
        folder = self.root / "incoming"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder / f"{uuid.uuid4().hex}.part"

    def part(self, name: str) -> Path:
        """Where a temporary file of `new_part` lies, by its name. Raises ValueError for any other name."""
        if not PART.fullmatch(name):
            raise ValueError(f"not a temporary file: {name!r}")
        return self.root / "incoming" / name

    def adopt(self, part: Path, key: str) -> None:
        """Give a finished temporary file or folder its name. An existing one of the same key stays."""
        target = self.local_path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.rename(target)
        except OSError:
            if not target.exists():
                raise
            self._remove(part)
        sync_folder(target.parent)

    def put_file(self, key: str, source: Path) -> StoredBytes:
        """Copy a local file in; returns its size and its hash."""
        target, part = self.local_path(key), self.new_part()
        size, digest = 0, hashlib.sha256()
        try:
            with source.open("rb") as reader, part.open("wb") as writer:
                while block := reader.read(1 << 20):
                    digest.update(block)
                    size += writer.write(block)
                writer.flush()
                os.fsync(writer.fileno())
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(target.parent)
        return StoredBytes(size, digest.hexdigest())

    def link(self, key: str, new_key: str) -> None:
        """Give a file a second name that outlives the first. Raises FileNotFoundError."""
        source, target = self.local_path(key), self.local_path(new_key)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(source)
        except FileExistsError:
            return
        except PermissionError:  # file systems without hard links
            self.put_file(new_key, source)
        sync_folder(target.parent)

    def put_tree(self, key: str, source: Path) -> int:
        """Copy a local folder in; returns the sum of its files' sizes in bytes."""
        part = self.new_part()
        size = 0
        try:
            shutil.copytree(source, part)
            for file in part.rglob("*"):
                if file.is_file():
                    size += file.stat().st_size
                    with file.open("rb") as written:
                        os.fsync(written.fileno())
            self.adopt(part, key)
        finally:
            self._remove(part)
        return size

    def open(self, key: str) -> BinaryIO:
        """The file's bytes."""
        return self.local_path(key).open("rb")

    def size(self, key: str) -> int:
        """Bytes of a file, or of all files of a folder. Raises FileNotFoundError."""
        path = self.local_path(key)
        if path.is_dir():
            return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        return path.stat().st_size

    def exists(self, key: str) -> bool:
        """Whether the key has a file or folder."""
        return self.local_path(key).exists()

    def delete(self, key: str) -> None:
        """Remove a file or folder; nothing happens when it is not there."""
        self._remove(self.local_path(key))

    def sweep_parts(self, older_than_seconds: float) -> None:
        """Remove what processes that were killed have left half written."""
        for part in (self.root / "incoming").glob("*.part"):
            # others sweep too, and uploads end while we look
            with contextlib.suppress(OSError):
                if time.time() - part.stat().st_mtime > older_than_seconds:
                    self._remove(part)

    def check(self) -> None:
        """Raise OSError unless a file can be written."""
        part = self.new_part()
        part.write_bytes(b"")
        part.unlink()

    @staticmethod
    def _remove(path: Path) -> None:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
