"""NumPy files: whole, in parts, ragged or padded, and errors that name the array."""

from __future__ import annotations

import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainkit.data import ArrayInputs, DataError, Dataset, SequenceInputs, load_dataset
from trainkit.data.arrays import read_arrays

X, Y = np.arange(12.0).reshape(4, 3), np.array([2, 0, 2, 2])


def npz(tmp_path: Path, arrays: dict[str, Any]) -> Path:
    np.savez_compressed(tmp_path / "d.npz", **arrays)
    return tmp_path / "d.npz"


def sequences_of(dataset: Dataset) -> list[list[float]]:
    inputs = dataset.inputs
    assert isinstance(inputs, SequenceInputs)
    return [inputs.values[a:b, 0].tolist() for a, b in zip(inputs.offsets[:-1], inputs.offsets[1:], strict=True)]


def test_read_arrays_x_and_y(tmp_path: Path) -> None:
    dataset, details = read_arrays(npz(tmp_path, {"X": X, "y": Y, "split": np.array([0, 0, 1, 2])}))
    assert isinstance(dataset.inputs, ArrayInputs)
    np.testing.assert_array_equal(dataset.inputs.values, X)
    assert dataset.facts.classes == {"0": 1, "2": 3}
    assert dataset.facts.splits == {"train": 2, "validation": 1, "test": 1}
    assert details["arrays"]["X"] == {"shape": [4, 3], "dtype": "float64"}


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_read_arrays_concatenates_parts(validation: str, tmp_path: Path) -> None:
    parts = {"train": slice(0, 2), validation: slice(2, 3), "test": slice(3, 4)}
    arrays = {f"{letter}_{part}": array[rows] for part, rows in parts.items() for letter, array in (("X", X), ("y", Y))}
    dataset, _ = read_arrays(npz(tmp_path, arrays))
    assert isinstance(dataset.inputs, ArrayInputs)
    np.testing.assert_array_equal(dataset.inputs.values, X)
    assert dataset.split is not None
    assert dataset.split.tolist() == [0, 0, 1, 2]


def test_read_arrays_float_targets_are_regression(tmp_path: Path) -> None:
    assert read_arrays(npz(tmp_path, {"X": X, "y": X[:, 0]}))[0].facts.target_type == "number"


def test_read_arrays_single_npy_has_no_targets(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    dataset = load_dataset(tmp_path / "x.npy")
    assert dataset.facts.target_type == "none"


def test_read_arrays_npy_files_in_a_folder_or_a_tar(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    np.save(folder / "X.npy", X)
    np.save(folder / "y.npy", Y)
    with tarfile.open(tmp_path / "d.tar.gz", "w:gz") as bundle:
        bundle.add(folder, "d")
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.write(folder / "X.npy", "d/X.npy")
        archive.write(folder / "y.npy", "d/y.npy")
    for path in (folder, tmp_path / "d.tar.gz", tmp_path / "d.zip"):
        assert load_dataset(path).facts == Dataset.from_arrays(X, Y).facts


def test_read_arrays_ragged_sequences(tmp_path: Path) -> None:
    values = np.arange(5.0)[:, None]
    dataset = load_dataset(npz(tmp_path, {"values": values, "offsets": np.array([0, 2, 5]), "y": np.array(["b", "a"])}))
    assert sequences_of(dataset) == [[0, 1], [2, 3, 4]]
    assert dataset.facts.classes == {"a": 1, "b": 1}


@pytest.mark.parametrize("kind", [None, "sequences"])
def test_read_arrays_removes_padding(kind: str | None, tmp_path: Path) -> None:
    arrays = {"X": np.array([[[0.0], [1], [9]], [[2], [3], [4]]]), "lengths": np.array([2, 3]), "y": np.array([0, 1])}
    dataset = load_dataset(npz(tmp_path, arrays), kind=kind)
    assert sequences_of(dataset) == [[0, 1], [2, 3, 4]]
    assert dataset.facts.lengths == (2, 3)


@pytest.mark.parametrize(
    ("arrays", "where"),
    [
        ({"data": X}, ""),
        ({"X": np.array(3.0)}, "X"),
        ({"X": np.array(["a"] * 4)[:, None]}, "X"),
        ({"X": np.where(X == 7, np.nan, X), "y": Y}, "X[2]"),
        ({"X": np.zeros((4, 0)), "y": Y}, "X"),
        ({"X": np.zeros((4, 0, 5)), "y": Y}, "X"),
        ({"X": np.zeros((4, 3, 0, 5)), "y": Y}, "X"),
        ({"X": X, "y": Y[:3]}, "y"),
        ({"X": X, "y": np.array(1)}, "y"),
        ({"X": X, "y": Y, "split": np.array([0, 1, 2, 9])}, "split"),
        ({"X_train": X, "y_train": Y[:3]}, "y_train"),
        ({"X_train": X}, "y_train"),
        ({"X_train": X, "y_train": Y, "X_test": X[:, :2], "y_test": Y}, "X"),
        ({"X_train": X, "y_train": Y, "X_test": X, "y_test": Y[:, None]}, "y"),
        ({"values": X, "offsets": np.array([0, 3, 1, 4])}, "offsets"),
        ({"values": X, "offsets": np.array([0, 3, 1, 4], np.uint64)}, "offsets"),
        ({"values": X, "offsets": np.array([0.0, 4.0])}, "offsets"),
        ({"X": X, "lengths": np.array(["a", "b", "c", "d"])}, "lengths"),
        ({"X": X, "lengths": np.array([1, 2, 3, 4])}, "lengths"),
    ],
)
def test_read_arrays_errors_name_the_array(arrays: dict[str, Any], where: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_arrays(npz(tmp_path, arrays))
    assert caught.value.problems[0].where == where


def test_read_arrays_refuses_pickles(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_arrays(npz(tmp_path, {"X": X, "y": np.array([{}, [], 1, 2], object)}))
    assert (caught.value.problems[0].code, caught.value.problems[0].where) == ("pickle", "y")


def test_read_arrays_refuses_text(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="not a NumPy array"):
        read_arrays(tmp_path / "t")


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_read_arrays_damaged_files_raise_data_errors(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", X=X, y=Y)
    np.save(tmp_path / "d.npy", X)
    raw = (tmp_path / f"d.{kind}").read_bytes()
    for trial in range(200):
        broken = bytearray(raw)
        for place in random.integers(0, min(len(raw), 400), 1 + trial % 6):
            broken[place] = random.integers(256)
        (tmp_path / "b").write_bytes(broken if trial % 5 else broken[: random.integers(len(raw))])
        with suppress(DataError):
            load_dataset(tmp_path / "b", kind="arrays")
