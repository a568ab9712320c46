"""Archives: unsafe and damaged ones raise DataError with the name of the entry."""

from __future__ import annotations

import io
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from trainkit.data import DataError, archive
from trainkit.data.archive import entries, is_archive, names

FILES = {"a/1.txt": b"one", "b/2.txt": b"two" * 100}


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, data in files.items():
            bundle.writestr(name, data)
    return path


def make_tar(path: Path, members: dict[str, bytes | tarfile.TarInfo], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as bundle:  # type: ignore[call-overload]
        for name, data in members.items():
            if isinstance(data, tarfile.TarInfo):
                bundle.addfile(data)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(data)
            bundle.addfile(info, io.BytesIO(data))
    return path


def make_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def refusal(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        list(entries(path))
    return caught.value


def test_entries_of_zip_tar_and_folder_are_equal(tmp_path: Path) -> None:
    hidden = {"__MACOSX/a/._1.txt": b"", ".DS_Store": b""}
    paths = [
        make_zip(tmp_path / "x.zip", FILES | hidden),
        *(make_tar(tmp_path / f"x{mode[2:]}", {**FILES, **hidden}, mode) for mode in ("w:", "w:gz", "w:bz2", "w:xz")),
        make_folder(tmp_path / "folder", FILES | hidden),
    ]
    for path in paths:
        assert {entry.name: entry.data for entry in entries(path)} == FILES
        assert set(FILES) <= set(names(path))
        assert is_archive(path) != path.is_dir()


@pytest.mark.parametrize("name", ["/etc/passwd", "../up.txt", "a/../../up.txt", "..\\up.txt", "C:\\x.txt"])
def test_entries_refuse_names_that_point_outside(name: str, tmp_path: Path) -> None:
    assert refusal(make_zip(tmp_path / "x.zip", {"ok.txt": b"", name: b""})).problems[0].code == "unsafe_name"
    assert refusal(make_tar(tmp_path / "x.tar", {"ok.txt": b"", name: b""})).problems[0].where == name


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_entries_refuse_links_and_devices_in_a_tar(kind: bytes, tmp_path: Path) -> None:
    info = tarfile.TarInfo("a/link.png")
    info.type, info.linkname = kind, "/etc/passwd"
    problem = refusal(make_tar(tmp_path / "x.tar.gz", {"a/1.txt": b"one", "link": info})).problems[0]
    assert (problem.code, problem.where) == ("link", "a/link.png")


def test_entries_refuse_links_in_a_zip_and_a_folder(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("a/link.png")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as bundle:
        bundle.writestr(info, "/etc/passwd")
    assert refusal(tmp_path / "x.zip").problems[0].code == "link"
    folder = make_folder(tmp_path / "folder", FILES)
    (folder / "a" / "link.png").symlink_to("/etc/passwd")
    assert refusal(folder).problems[0].where == "a/link.png"


def test_entries_refuse_a_zip_bomb(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"a/zeros.png": bytes(30 << 20)})
    problem = refusal(path).problems[0]
    assert (problem.code, problem.where) == ("bomb", "a/zeros.png")


def test_entries_refuse_a_tar_bomb_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_tar(tmp_path / "x.tar.gz", {"a/zeros.png": bytes(30 << 20)})
    monkeypatch.setattr(archive, "read_bounded", lambda *_: pytest.fail("it was unpacked"))
    assert refusal(path).problems[0].code == "bomb"
    with pytest.raises(DataError, match="200 times"):
        names(path)


def test_entries_refuse_overlapping_zip_entries(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"a/1.txt": b"x" * 500, "b/2.txt": b"y" * 500})
    raw = bytearray(path.read_bytes())
    second = raw.rindex(b"PK\x01\x02")
    raw[second + 42 : second + 46] = bytes(4)  # its header is said to stand where the first one's does
    path.write_bytes(raw)
    assert refusal(path).problems[0].code == "overlapping_entries"


def test_entries_refuse_encrypted_entries(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"a/1.txt": b"secret"})
    raw = bytearray(path.read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    assert refusal(path).problems[0].code == "encrypted"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entries_refuse_duplicate_names(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as bundle:
        bundle.writestr("a.txt", "1")
        bundle.writestr("a.txt", "2")
    assert refusal(tmp_path / "x.zip").problems[0].code == "duplicate_entry"


def test_entries_limit_number_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip(tmp_path / "x.zip", FILES)
    monkeypatch.setattr(archive, "MOST_ENTRIES", 1)
    assert refusal(path).problems[0].code == "too_many_entries"
    monkeypatch.undo()
    monkeypatch.setattr(archive, "MOST_BYTES", 10)
    assert refusal(path).problems[0].code == "too_large"


@pytest.mark.parametrize("kind", ["x.zip", "x.tar", "x.tar.gz", "x.tar.xz"])
def test_entries_of_damaged_archives_raise_data_errors(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise = {f"c{i}/{i}.png": random.bytes(200) for i in range(5)}
    mode = {"x.tar": "w:", "x.tar.gz": "w:gz", "x.tar.xz": "w:xz"}.get(kind)
    path = make_zip(tmp_path / kind, noise) if mode is None else make_tar(tmp_path / kind, dict(noise), mode)
    raw = path.read_bytes()
    for trial in range(120):
        broken = bytearray(raw)
        if trial % 3 == 0:
            del broken[random.integers(len(raw)) :]
        else:
            for place in random.integers(0, len(raw), 1 + trial % 7):
                broken[place] = random.integers(256)
        path.write_bytes(broken)
        with suppress(DataError):
            is_archive(path)
            names(path)
            list(entries(path))
