"""The prepared form: saving, loading and facts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainkit.data import ArrayInputs, Column, DataError, Dataset, ImageInputs, SequenceInputs, TableInputs
from trainkit.data.dataset import categories_of, column_facts, make_dataset


def images() -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
    return make_dataset("images", ImageInputs(pixels), np.array([0, 1, 1, 0, 1, 1]), ("cat", "dog"), np.arange(6) % 3)


def sequences() -> Dataset:
    inputs = SequenceInputs(np.ones((7, 2), np.float32), np.array([0, 3, 7]))
    return make_dataset("sequences", inputs, np.array([0.5, 1.5]), None, None)


def table() -> Dataset:
    columns = {
        "age": Column(np.array([1.0, np.nan, 3.5, 4.0])),
        "town": categories_of(["Ulm", None, "Aix", "Ulm"]),
        "rank": Column(np.array([3.0, 1.0, 3.0, 2.0])),
        "price": Column(np.array([0.5, 1.5, 2.5, 3.5])),
        "kind": categories_of(["b", "a", "b", "b"]),
    }
    return make_dataset("table", TableInputs(columns), None, None, None)


@pytest.mark.parametrize("dataset", [images(), sequences(), table(), Dataset.from_arrays(np.eye(3), [0, 1, 0])])
def test_loaded_equals_saved(dataset: Dataset, tmp_path: Path) -> None:
    dataset.save(tmp_path / "d")
    loaded = Dataset.load(tmp_path / "d")
    assert loaded.facts == dataset.facts
    assert type(loaded.inputs) is type(dataset.inputs)
    for a, b in ((dataset.targets, loaded.targets), (dataset.split, loaded.split)):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_array_equal(a, b)
    if isinstance(dataset.inputs, TableInputs):
        for name, column in dataset.inputs.columns.items():
            assert isinstance(loaded.inputs, TableInputs)
            np.testing.assert_array_equal(loaded.inputs.columns[name].values, column.values)
            assert loaded.inputs.columns[name].categories == column.categories
    assert sorted(file.name for file in tmp_path.iterdir()) == ["d"]


def test_loading_maps_the_file_instead_of_reading_it(tmp_path: Path) -> None:
    images().save(tmp_path / "d")
    inputs = Dataset.load(tmp_path / "d").inputs
    assert isinstance(inputs, ImageInputs)
    assert isinstance(inputs.pixels, np.memmap)


def test_a_save_that_fails_leaves_nothing_and_keeps_the_old(tmp_path: Path) -> None:
    images().save(tmp_path / "d")
    pickled = Dataset(images().facts, ArrayInputs(np.array([[object()]])))
    with pytest.raises(ValueError, match="allow_pickle"):
        pickled.save(tmp_path / "d")
    assert [file.name for file in tmp_path.iterdir()] == ["d"]
    assert Dataset.load(tmp_path / "d").facts.kind == "images"


def test_what_is_no_prepared_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a prepared dataset"):
        Dataset.load(tmp_path)
    images().save(tmp_path / "d")
    (tmp_path / "d" / "pixels.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match="not a prepared dataset"):
        Dataset.load(tmp_path / "d")


def test_facts_of_images() -> None:
    facts = images().facts
    assert facts.input_shape == (3, 4, 5)
    assert facts.classes == {"cat": 2, "dog": 4}
    assert facts.splits == {"train": 2, "validation": 2, "test": 2}


def test_facts_of_sequences() -> None:
    facts = sequences().facts
    assert (facts.input_shape, facts.lengths, facts.target_type) == ((4, 2), (3, 4), "number")


def test_facts_of_columns() -> None:
    facts = {column.name: column for column in table().facts.columns or ()}
    assert (facts["age"].type, facts["age"].missing, facts["age"].unique, facts["age"].integer) == (
        "numeric",
        1,
        3,
        False,
    )
    assert facts["town"].categories == {"Aix": 1, "Ulm": 2}
    assert (facts["rank"].integer, facts["rank"].categories) == (True, {"1": 1, "2": 1, "3": 2})
    infinite = column_facts("x", Column(np.array([np.inf, 1.0])))
    assert not infinite.integer


def test_a_target_column_gives_classes_or_numbers() -> None:
    kind = table().with_target("kind")
    assert kind.facts.classes == {"a": 1, "b": 3}
    assert kind.targets is not None
    assert kind.targets.tolist() == [1, 0, 1, 1]
    rank = table().with_target("rank")
    assert rank.facts.classes == {"1": 1, "2": 1, "3": 2}
    assert rank.targets is not None
    assert rank.targets.tolist() == [2, 0, 2, 1]
    price = table().with_target("price")
    assert (price.facts.target_type, price.facts.target, price.facts.classes) == ("number", "price", None)


@pytest.mark.parametrize(("column", "reason"), [("knd", "no column"), ("town", "1 rows have no value")])
def test_a_target_column_that_cannot_be_learnt(column: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        table().with_target(column)
    with pytest.raises(DataError, match="has no columns"):
        images().with_target(column)


@pytest.mark.parametrize(
    ("y", "classes", "targets"),
    [
        ([3, 1, 3], {"1": 1, "3": 2}, [1, 0, 1]),
        (["b", "a", "b"], {"a": 1, "b": 2}, [1, 0, 1]),
        (np.array(["b", "a", "b"], object), {"a": 1, "b": 2}, [1, 0, 1]),
        ([True, False, True], {"False": 1, "True": 2}, [1, 0, 1]),
        (np.array([b"\xff", b"a", b"a"]), {"a": 2, "\\xff": 1}, [1, 0, 0]),
        ([0.5, 1.0, 2.0], None, [0.5, 1.0, 2.0]),
        ([[1], [0], [1]], {"0": 1, "1": 2}, [1, 0, 1]),
    ],
)
def test_labels_are_classes_and_floats_are_numbers(
    y: object, classes: dict[str, int] | None, targets: list[float]
) -> None:
    dataset = Dataset.from_arrays(np.eye(3), y)  # type: ignore[arg-type]
    assert dataset.facts.classes == classes
    assert dataset.targets is not None
    assert dataset.targets.tolist() == targets


@pytest.mark.parametrize(
    ("different", "samples", "kind"), [(20, 20, "class"), (21, 100, "number"), (21, 210, "class"), (100, 1000, "class")]
)
def test_whole_numbers_are_classes_while_few_or_often_repeated(different: int, samples: int, kind: str) -> None:
    y = np.arange(samples) % different
    assert Dataset.from_arrays(np.zeros((samples, 1)), y).facts.target_type == kind


def test_several_numbers_a_sample() -> None:
    assert Dataset.from_arrays(np.eye(3), np.ones((3, 2))).facts.target_width == 2


def test_parts_may_be_named() -> None:
    dataset = Dataset.from_arrays(np.eye(3), split=["train", "Val", "test"])
    assert dataset.split is not None
    assert dataset.split.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "arguments",
    [
        {"X": np.ones(3)},
        {"X": np.array([["a"]])},
        {"X": np.ones((0, 2))},
        {"X": np.eye(3), "y": [1, 2]},
        {"X": np.eye(3), "y": 1},
        {"X": np.eye(3), "y": [0.5, np.nan, 1]},
        {"X": np.eye(3), "y": np.ones((3, 2, 2))},
        {"X": np.eye(3), "y": [1 + 2j, 0, 0]},
        {"X": np.eye(3), "y": [0, 1, 2], "classes": ["a", "b"]},
        {"X": np.eye(3), "y": [0.5, 1, 1], "classes": ["a", "b"]},
        {"X": np.eye(3), "split": [0, 1, 3]},
        {"X": np.eye(3), "split": ["train", "exam", "test"]},
        {"X": np.eye(3), "split": [[0], [1], [2]]},
    ],
)
def test_arrays_that_do_not_fit_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(DataError):
        Dataset.from_arrays(**arguments)  # type: ignore[arg-type]
