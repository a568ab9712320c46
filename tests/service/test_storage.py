"""Every file lands whole or not at all, under a key that the server made."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from service.storage import Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/storage")


def leftovers(storage: Storage) -> list[str]:
    return [path.name for path in (storage.root / "incoming").glob("*")]


def test_a_file_and_a_folder_come_back(storage: Storage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"12345")
    (source / "b").write_bytes(b"678")
    digest = hashlib.sha256(b"12345").hexdigest()
    assert storage.put_file("artifacts/job_1/a", source / "a") == (5, digest)
    assert storage.open("artifacts/job_1/a").read() == b"12345"
    assert storage.put_tree("models/job_1/1", source) == 8
    assert (storage.size("artifacts/job_1/a"), storage.size("models/job_1/1")) == (5, 8)
    assert sorted(p.name for p in storage.local_path("models/job_1/1").iterdir()) == ["a", "b"]
    assert leftovers(storage) == []


def test_putting_twice_keeps_one(storage: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_bytes(b"first")
    storage.put_tree("models/job_1/1", folder)
    (folder / "a").write_bytes(b"again")
    storage.put_tree("models/job_1/1", folder)
    assert (storage.local_path("models/job_1/1") / "a").read_bytes() == b"first"
    assert leftovers(storage) == []


def test_what_fails_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        storage.put_file("artifacts/job_1/a", tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        storage.put_tree("models/job_1/1", tmp_path / "missing")
    assert leftovers(storage) == []
    assert not storage.exists("artifacts/job_1/a")


def test_deleting_what_is_not_there_is_no_error(storage: Storage) -> None:
    storage.delete("models/job_1/1")
    with pytest.raises(FileNotFoundError):
        storage.size("models/job_1/1")


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "models", "models/../../etc", "models/..", "models/a b", "models/.hidden", "Models/a",
     "models//a", "models/a/", "models/a\n", "models/\x00", "models/a/b/c/d/e/f", "models/" + "a" * 129],
)  # fmt: skip
def test_only_server_made_keys_name_files(storage: Storage, key: str) -> None:
    for use in (storage.local_path, storage.open, storage.exists, storage.delete, storage.size):
        with pytest.raises(ValueError, match="not a storage key"):
            use(key)


def test_half_written_parts_are_swept_when_they_are_old(storage: Storage) -> None:
    old, new = storage.new_part(), storage.new_part()
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (0, 0))
    storage.sweep_parts(3600)
    assert leftovers(storage) == [new.name]


def test_other_kinds_of_storage_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="s3://bucket"):
        Storage("s3://bucket")


def test_check_fails_when_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError):
        Storage(str(tmp_path / "file")).check()
