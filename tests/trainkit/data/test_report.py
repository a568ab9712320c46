"""Findings: what in a dataset will spoil training, and where."""

from __future__ import annotations

import json

import numpy as np
import pytest

from trainkit.data import Column, Dataset, ImageInputs, SequenceInputs, TableInputs
from trainkit.data.dataset import categories_of, make_dataset
from trainkit.data.report import report

RANDOM = np.random.default_rng(0)


def found(dataset: Dataset, **details: object) -> dict[str, dict[str, str]]:
    made = report(dataset, "said at upload", dict(details))
    json.dumps(made, allow_nan=False)
    return {finding["code"]: finding for finding in made["findings"]}


def table(target: str | None = None) -> Dataset:
    n = 100
    columns = {
        "row": Column(np.arange(n, dtype=np.float64)),
        "name": categories_of([f"person {i}" for i in range(n)]),
        "same": Column(np.ones(n)),
        "gaps": Column(np.where(np.arange(n) < 3, np.nan, RANDOM.normal(size=n))),
        "fine": Column(RANDOM.normal(size=n)),
        "label": categories_of(["rare" if i < 10 else "common" for i in range(n)]),
    }
    return make_dataset("table", TableInputs(columns), None, None, None, target=target)


def test_columns() -> None:
    made = report(table(), "text", {})
    by_code: dict[str, list[str]] = {}
    for finding in made["findings"]:
        by_code.setdefault(finding["code"], []).append(finding["where"])
    assert by_code == {"id_like_column": ["row", "name"], "constant_column": ["same"], "missing_values": ["gaps"]}
    assert [column["name"] for column in made["columns"]] == ["row", "name", "same", "gaps", "fine", "label"]


def test_imbalance_of_classes_and_of_a_target_column() -> None:
    y = [0] * 60 + [1] * 10
    assert found(Dataset.from_arrays(RANDOM.normal(size=(70, 2)), y))["class_imbalance"]["severity"] == "warning"
    assert "class_imbalance" not in found(Dataset.from_arrays(RANDOM.normal(size=(70, 2)), [0] * 35 + [1] * 35))
    assert "class_imbalance" in found(table("label"))


def test_the_same_sample_in_training_and_test() -> None:
    pixels = RANDOM.integers(0, 256, (6, 2, 2, 1), np.uint8)
    pixels[5] = pixels[0]
    split = np.array([0, 0, 0, 1, 2, 2])
    findings = found(make_dataset("images", ImageInputs(pixels), None, None, split))
    assert findings["leakage"]["message"].startswith("1 samples stand in train and test")
    assert findings["duplicates"]["severity"] == "info"
    assert "leakage" not in found(make_dataset("images", ImageInputs(pixels), None, None, None))


@pytest.mark.parametrize("kind", ["arrays", "sequences", "table"])
def test_leakage_is_seen_in_every_kind(kind: str) -> None:
    values = np.array([[1.0], [2.0], [1.0]])
    split = np.array([0, 0, 2])
    if kind == "sequences":
        inputs = SequenceInputs(values.astype(np.float32), np.arange(4))
        dataset = make_dataset("sequences", inputs, None, None, split)
    elif kind == "table":
        dataset = make_dataset("table", TableInputs({"x": Column(values[:, 0])}), None, None, split)
    else:
        dataset = Dataset.from_arrays(values, split=split)
    assert "leakage" in found(dataset)


def test_a_class_that_training_never_sees() -> None:
    dataset = Dataset.from_arrays(np.eye(4), ["a", "a", "b", "a"], split=[0, 0, 2, 2])
    assert "'b'" in found(dataset)["class_not_in_train"]["message"]
    assert "one_class" in found(Dataset.from_arrays(np.eye(2), ["a", "a"]))


def test_features_that_never_change() -> None:
    X = np.stack([np.ones(5), np.arange(5), np.zeros(5)], axis=1)
    assert found(Dataset.from_arrays(X))["constant_column"]["where"] == "0, 2"


def test_channel_statistics_are_those_of_the_unit_scale() -> None:
    pixels = RANDOM.integers(0, 256, (9, 5, 4, 3), np.uint8)
    made = report(make_dataset("images", ImageInputs(pixels), None, None, None), "", {})
    np.testing.assert_allclose(made["channel_means"], (pixels / 255).mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(made["channel_stds"], (pixels / 255).std((0, 1, 2)), atol=1e-6)


def test_what_the_reader_did() -> None:
    details = {
        "unreadable": [{"where": "a/1.png", "reason": "truncated"}],
        "resized": 3,
        "modes": {"L": 1, "RGB": 2},
        "unlabelled": 4,
        "split_column": "split",
    }
    findings = found(Dataset.from_arrays(np.eye(3)), **details)
    assert {"unreadable", "resized", "mixed_modes", "unlabelled", "split_column"} <= findings.keys()
    assert findings["unreadable"]["where"] == "a/1.png"


def test_one_sample_under_two_classes() -> None:
    X = np.array([[1.0], [2.0], [1.0]])
    assert found(Dataset.from_arrays(X, ["a", "b", "b"]))["conflicting_labels"]["message"].startswith("1 samples")
    assert "conflicting_labels" not in found(Dataset.from_arrays(X, ["a", "b", "a"]))


def test_infinite_values_and_whole_number_targets() -> None:
    dataset = make_dataset("table", TableInputs({"x": Column(np.array([1.0, np.inf, 2.0]))}), None, None, None)
    assert found(dataset)["infinite_values"]["where"] == "x"
    assert "30 different" in found(Dataset.from_arrays(np.eye(30), np.arange(30)))["whole_number_targets"]["message"]


def test_a_long_list_of_unreadable_files_is_cut_but_counted() -> None:
    items = [{"where": f"{i}.png", "reason": "truncated"} for i in range(1500)]
    made = report(Dataset.from_arrays(np.eye(3)), "", {"unreadable": items})
    assert len(made["unreadable"]) == 1000
    assert made["findings"][0]["message"].startswith("1500 left out")
