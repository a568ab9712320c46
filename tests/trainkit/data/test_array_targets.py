"""Targets of arrays: one-hot rows are classes, and `task` at upload decides otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainkit as tk
from trainkit.data import DataError, Dataset, load_dataset, prepare
from trainkit.spec.facts import DatasetFacts
from trainkit.spec.read_options import ReadOptions

CASE = Path("tests/data/cases/onehot.npz")
LABELS = np.array([2, 0, 1, 2, 2, 1])
ONE_HOT = np.eye(4)[LABELS]


def read(tmp_path: Path, y: Any, **options: Any) -> tuple[DatasetFacts, dict[str, Any]]:
    np.savez(tmp_path / "d.npz", X=np.arange(len(y) * 2.0).reshape(-1, 2), y=y)
    return prepare(tmp_path / "d.npz", tmp_path / "p", reading=ReadOptions(**options))


def codes(report: dict[str, Any]) -> list[str]:
    return [finding["code"] for finding in report["findings"]]


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int64", "float16", "float32", "float64"])
def test_one_hot_rows_of_any_type_are_classes(dtype: str, tmp_path: Path) -> None:
    facts, report = read(tmp_path, ONE_HOT.astype(dtype))
    assert facts.classes == {"0": 1, "1": 2, "2": 3, "3": 0}
    assert Dataset.load(tmp_path / "p").targets.tolist() == LABELS.tolist()  # type: ignore[union-attr]
    (found,) = [finding for finding in report["findings"] if finding["code"] == "one_hot_targets"]
    assert found["severity"] == "info"
    assert "y is read as 4 classes, named 0 to 3 by column; upload with `task: regression`" in found["message"]


def test_one_hot_rows_are_numbers_if_that_is_said(tmp_path: Path) -> None:
    facts, report = read(tmp_path, ONE_HOT, task="regression")
    assert (facts.target_type, facts.target_width, facts.classes) == ("number", 4, None)
    assert "one_hot_targets" not in codes(report)
    assert Dataset.from_arrays(ONE_HOT, ONE_HOT, task="regression").facts.target_width == 4


@pytest.mark.parametrize(
    "y",
    [
        ONE_HOT * 2,
        ONE_HOT - 1,
        np.vstack([ONE_HOT[1:], np.zeros(4)]),
        np.vstack([ONE_HOT[1:], [1, 1, 0, 0]]),
        np.vstack([ONE_HOT[1:], [1, 0.5, 0, 0]]),
        ONE_HOT * 0.9 + 0.025,
    ],
    ids=["twos", "minus", "no 1", "two 1", "half", "smoothed"],
)
def test_other_rows_are_numbers(y: Any, tmp_path: Path) -> None:
    facts, report = read(tmp_path, y)
    assert (facts.target_type, facts.target_width) == ("number", 4)
    zeros_and_ones = bool(np.isin(y, (0, 1)).all())
    assert ("multi_label_targets" in codes(report)) == zeros_and_ones
    with pytest.raises(DataError, match=r"y: y has shape \(6, 4\), and its rows are not one-hot"):
        read(tmp_path, y, task="classification")


def test_a_single_column_of_ones_is_no_class(tmp_path: Path) -> None:
    assert read(tmp_path, np.ones((6, 1)))[0].target_type == "number"


def test_one_hot_of_parts_sequences_and_named_classes(tmp_path: Path) -> None:
    parts = {"X_train": ONE_HOT, "y_train": ONE_HOT, "X_test": ONE_HOT[:2], "y_test": ONE_HOT[:2]}
    np.savez(tmp_path / "d.npz", **parts)
    assert load_dataset(tmp_path / "d.npz").facts.classes == {"0": 2, "1": 2, "2": 4, "3": 0}
    np.savez(tmp_path / "d.npz", values=np.ones((12, 2)), offsets=np.arange(7) * 2, y=ONE_HOT.astype(int))
    assert load_dataset(tmp_path / "d.npz").facts.target_type == "class"
    named = Dataset.from_arrays(np.ones((6, 2)), ONE_HOT, classes=["a", "b", "c", "d"])
    assert named.facts.classes == {"a": 1, "b": 2, "c": 3, "d": 0}


def test_task_decides_of_whole_numbers(tmp_path: Path) -> None:
    few, many = np.array([1, 2, 1, 2, 1, 2]), np.arange(30)
    assert read(tmp_path, few)[0].target_type == "class"
    assert read(tmp_path, few, task="regression")[0].target_type == "number"
    facts, report = read(tmp_path, many)
    assert facts.target_type == "number"
    (found,) = [finding for finding in report["findings"] if finding["code"] == "whole_number_targets"]
    assert "upload with `task: classification`" in found["message"]
    assert read(tmp_path, many, task="classification")[0].target_type == "class"
    assert list(read(tmp_path, few * 1.0, task="classification")[0].classes or ()) == ["1", "2"]


def test_task_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"y\[1\]: y holds 2.5, which is no whole number"):
        read(tmp_path, np.array([1.0, 2.5, 3.0]), task="classification")
    with pytest.raises(DataError, match="y: y is of type <U1") as caught:
        read(tmp_path, np.array(["a", "b", "a"]), task="regression")
    assert caught.value.problems[0].hint == "Leave `task: regression` out."


def test_the_spec_says_where_the_task_is_decided(tmp_path: Path) -> None:
    facts, _ = read(tmp_path, ONE_HOT)
    spec = {"dataset": "d", "task": "regression", "model": {"kind": "linear"}}
    with pytest.raises(tk.spec.SpecError, match="the dataset's targets are classes") as caught:
        tk.spec.resolve(tk.JobSpec.model_validate(spec), facts)
    assert caught.value.problems[0].hint.endswith("To have y read otherwise, upload it with `task: regression`.")


def test_the_case_is_a_classification() -> None:
    data = load_dataset(CASE)
    assert data.facts.classes == {"0": 6, "1": 6}
    assert np.asarray(data.targets).tolist() == np.load(CASE)["y"].argmax(1).tolist()
    spec = {
        "dataset": "d",
        "model": {"kind": "mlp", "hidden": [16]},
        "split": {"train": 1, "validation": 0, "test": 0},
        "train": {"epochs": 2, "batch_size": 12},
    }
    result = tk.fit(tk.JobSpec.model_validate(spec), data)
    assert result.evaluation is not None
    assert result.evaluation["classes"] == ["0", "1"]
    assert 0 <= result.evaluation["metrics"]["accuracy"] <= 1
    assert result.model is not None
    for answer in result.model.predict(np.load(CASE)["X"]):
        assert answer["label"] in ("0", "1")
        assert sum(answer["probabilities"].values()) == pytest.approx(1)
