"""IDX files: loose, gzipped, in archives, and with wrong headers."""

from __future__ import annotations

import gzip
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from trainkit.data import DataError, ImageInputs, load_dataset
from trainkit.data.idx import parse_idx, read_idx

RANDOM = np.random.default_rng(0)
TRAIN, TEST = (RANDOM.integers(0, 256, (n, 4, 3), np.uint8) for n in (6, 2))
FILES = {
    "train-images-idx3-ubyte": struct.pack(">IIII", 0x803, 6, 4, 3) + TRAIN.tobytes(),
    "train-labels-idx1-ubyte": struct.pack(">II", 0x801, 6) + bytes([0, 1, 2, 0, 1, 2]),
    "t10k-images-idx3-ubyte": struct.pack(">IIII", 0x803, 2, 4, 3) + TEST.tobytes(),
    "t10k-labels-idx1-ubyte": struct.pack(">II", 0x801, 2) + bytes([2, 2]),
}


def folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", ["folder", "zip", "tar.gz"])
def test_the_four_files(packed: bool, form: str, tmp_path: Path) -> None:
    files = {f"{name}.gz": gzip.compress(data) for name, data in FILES.items()} if packed else FILES
    path = folder(tmp_path / "raw", files)
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "d.zip", "w") as bundle:
            for name, data in files.items():
                bundle.writestr(f"mnist/{name}", data)
        path = tmp_path / "d.zip"
    elif form == "tar.gz":
        with tarfile.open(tmp_path / "d.tar.gz", "w:gz") as archive:
            archive.add(path, "mnist")
        path = tmp_path / "d.tar.gz"
    dataset = load_dataset(path)
    assert isinstance(dataset.inputs, ImageInputs)
    np.testing.assert_array_equal(dataset.inputs.pixels[..., 0], np.concatenate([TRAIN, TEST]))
    assert dataset.targets is not None
    assert dataset.targets.tolist() == [0, 1, 2, 0, 1, 2, 2, 2]
    assert dataset.facts.splits == {"train": 6, "validation": 0, "test": 2}
    assert (dataset.facts.kind, dataset.facts.input_shape) == ("idx", (1, 4, 3))


def test_one_part_alone_ships_no_split(tmp_path: Path) -> None:
    train_files = {name: data for name, data in FILES.items() if name.startswith("train")}
    assert read_idx(folder(tmp_path / "d", train_files))[0].split is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"train-labels-idx1-ubyte": None}, "unequal_lengths"),
        ({"train-labels-idx1-ubyte": struct.pack(">II", 0x801, 1) + b"\0"}, "unequal_lengths"),
        ({"train-images-idx3-ubyte": FILES["train-images-idx3-ubyte"][:-1]}, "truncated"),
        ({"train-images-idx3-ubyte": b"\0\0\x08\x03\0"}, "truncated"),
        ({"train-images-idx3-ubyte": struct.pack(">IIII", 0x803, *[2**32 - 1] * 3)}, "truncated"),
        ({"train-images-idx3-ubyte": b"hello"}, "not_idx"),
        ({"train-images-idx3-ubyte": b"\x1f\x8bhello"}, "damaged_gzip"),
        ({"train-images-idx3-ubyte": gzip.compress(bytes(20 << 20))}, "bomb"),
        ({"t10k-images-idx3-ubyte": struct.pack(">IIII", 0x803, 2, 3, 4) + TEST.tobytes()}, "unequal_shapes"),
        ({"train-images-idx3-ubyte.gz": gzip.compress(FILES["train-images-idx3-ubyte"])}, "duplicate_entry"),
        (
            {
                "t10k-images-idx3-ubyte": struct.pack(">IIII", 0x803, 0, 4, 3),
                "t10k-labels-idx1-ubyte": struct.pack(">II", 0x801, 0),
            },
            "empty",
        ),
        (dict.fromkeys(FILES), "no_idx"),
    ],
)
def test_refusals(changes: dict[str, bytes | None], code: str, tmp_path: Path) -> None:
    files = {name: data for name, data in {**FILES, **changes}.items() if data is not None}
    with pytest.raises(DataError) as caught:
        read_idx(folder(tmp_path / "d", files))
    assert caught.value.problems[0].code == code


@pytest.mark.parametrize("train", ["train-images.idx3-ubyte", "emnist-letters-train-images-idx3-ubyte"])
def test_other_names_of_the_same_files_and_labels_from_one(train: str, tmp_path: Path) -> None:
    names = {
        old: train.replace("images", kind).replace("idx3", digit)
        for old, kind, digit in (
            ("train-images-idx3-ubyte", "images", "idx3"),
            ("train-labels-idx1-ubyte", "labels", "idx1"),
        )
    }
    files = {names[old]: FILES[old] for old in names}
    files |= {name.replace("train", "test"): FILES[old.replace("train", "t10k")] for old, name in names.items()}
    files[names["train-labels-idx1-ubyte"]] = struct.pack(">II", 0x801, 6) + bytes([1, 2, 4, 1, 2, 4])
    files[names["train-labels-idx1-ubyte"].replace("train", "test")] = struct.pack(">II", 0x801, 2) + bytes([4, 4])
    dataset = load_dataset(folder(tmp_path / "d", files))
    assert dataset.facts.classes == {"1": 2, "2": 2, "4": 4}
    assert dataset.facts.splits == {"train": 6, "validation": 0, "test": 2}


def test_only_bytes_are_read() -> None:
    with pytest.raises(DataError, match="IDX file of bytes"):
        parse_idx(b"\0\0\x0d\x01" + bytes(8), "floats-idx1-ubyte")
