"""Findings of the dataset report."""

from __future__ import annotations

import json

import numpy as np
import pytest

from trainkit.data import (
    Column,
    Dataset,
    ImageInputs,
    SequenceInputs,
    TableInputs,
    drift,
    image_loading,
    statistics,
)
from trainkit.data.dataset import categories_of, make_dataset
from trainkit.data.report import report

RANDOM = np.random.default_rng(0)


def found(dataset: Dataset, **details: object) -> dict[str, dict[str, str]]:
    data_report = report(dataset, "said at upload", dict(details))
    json.dumps(data_report, allow_nan=False)
    return {finding["code"]: finding for finding in data_report["findings"]}


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
    data_report = report(table(), "text", {})
    by_code: dict[str, list[str]] = {}
    for finding in data_report["findings"]:
        by_code.setdefault(finding["code"], []).append(finding["where"])
    assert by_code == {"id_like_column": ["row", "name"], "constant_column": ["same"], "missing_values": ["gaps"]}
    assert [column["name"] for column in data_report["columns"]] == ["row", "name", "same", "gaps", "fine", "label"]


def test_imbalance_of_classes_and_of_a_target_column() -> None:
    y = [0] * 60 + [1] * 10
    assert found(Dataset.from_arrays(RANDOM.normal(size=(70, 2)), y))["class_imbalance"]["severity"] == "warning"
    assert "class_imbalance" not in found(Dataset.from_arrays(RANDOM.normal(size=(70, 2)), [0] * 35 + [1] * 35))
    assert "class_imbalance" in found(table("label"))


def test_report_of_duplicates_between_parts() -> None:
    pixels = RANDOM.integers(0, 256, (6, 2, 2, 1), np.uint8)
    pixels[5] = pixels[0]
    split = np.array([0, 0, 0, 1, 2, 2])
    findings = found(make_dataset("images", ImageInputs(pixels), None, None, split))
    assert findings["leakage"]["message"].startswith("1 samples are in both train and test")
    assert findings["duplicates"]["severity"] == "info"
    assert "leakage" not in found(make_dataset("images", ImageInputs(pixels), None, None, None))


@pytest.mark.parametrize("kind", ["arrays", "sequences", "table"])
def test_report_finds_leakage_in_every_kind(kind: str) -> None:
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


def test_report_of_a_class_missing_in_training() -> None:
    dataset = Dataset.from_arrays(np.eye(4), ["a", "a", "b", "a"], split=[0, 0, 2, 2])
    assert "'b'" in found(dataset)["class_not_in_train"]["message"]
    assert "one_class" in found(Dataset.from_arrays(np.eye(2), ["a", "a"]))


def test_report_of_constant_features() -> None:
    X = np.stack([np.ones(5), np.arange(5), np.zeros(5)], axis=1)
    assert found(Dataset.from_arrays(X))["constant_column"]["where"] == "0, 2"


def test_channel_statistics_are_those_of_the_unit_scale() -> None:
    pixels = RANDOM.integers(0, 256, (9, 5, 4, 3), np.uint8)
    data_report = report(make_dataset("images", ImageInputs(pixels), None, None, None), "", {})
    np.testing.assert_allclose(data_report["channel_means"], (pixels / 255).mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(data_report["channel_stds"], (pixels / 255).std((0, 1, 2)), atol=1e-6)


def test_report_of_reader_notes() -> None:
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


def test_report_of_conflicting_labels() -> None:
    X = np.array([[1.0], [2.0], [1.0]])
    assert found(Dataset.from_arrays(X, ["a", "b", "b"]))["conflicting_labels"]["message"].startswith("1 samples")
    assert "conflicting_labels" not in found(Dataset.from_arrays(X, ["a", "b", "a"]))


def test_infinite_values_and_whole_number_targets() -> None:
    dataset = make_dataset("table", TableInputs({"x": Column(np.array([1.0, np.inf, 2.0]))}), None, None, None)
    assert found(dataset)["infinite_values"]["where"] == "x"
    assert "30 different" in found(Dataset.from_arrays(np.eye(30), np.arange(30)))["whole_number_targets"]["message"]


def test_report_limits_the_list_of_unreadable_files() -> None:
    items = [{"where": f"{i}.png", "reason": "truncated"} for i in range(1500)]
    data_report = report(Dataset.from_arrays(np.eye(3)), "", {"unreadable": items})
    assert len(data_report["unreadable"]) == 1000
    assert data_report["findings"][0]["message"].startswith("1500 unreadable files or rows were left out")


def textures(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Pictures (n, 24, 24, 1) that differ from one another on a large scale."""
    coarse = RANDOM.integers(0, 200, (count, 6, 6, 1))
    return np.kron(coarse, np.ones((1, 4, 4, 1))).astype(np.uint8)


def test_report_of_near_duplicate_images() -> None:
    pixels = textures(60)
    pixels[40] = pixels[7] + RANDOM.integers(0, 3, pixels[7].shape).astype(np.uint8)
    split = np.array([0] * 40 + [2] * 20)
    names = [f"a/{i}.png" for i in range(60)]
    findings = found(make_dataset("images", ImageInputs(pixels), None, None, split), names=names)
    assert findings["near_duplicates"]["message"].endswith(
        "1 images are near duplicates of others, e.g. a/7.png and a/40.png"
    )
    assert findings["near_leakage"]["where"] == "a/40.png"
    assert "duplicates" not in findings
    assert "near_duplicates" not in found(make_dataset("images", ImageInputs(textures(300)), None, None, None))


def test_report_names_exact_duplicates() -> None:
    pixels = textures(8)
    pixels[6] = pixels[2]
    findings = found(
        make_dataset("images", ImageInputs(pixels), None, None, None), names=[f"{i}.png" for i in range(8)]
    )
    assert findings["duplicates"]["message"] == "1 samples are exact duplicates of others, e.g. 6.png is 2.png"


def test_image_statistics_in_blocks_equal_those_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = RANDOM.integers(0, 256, (50, 7, 11, 3), np.uint8)
    pixels[3] = 9
    whole = statistics.image_statistics(pixels)
    monkeypatch.setattr(statistics, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(statistics, "SINGLE_PROCESS_BYTES", 0)
    parts = statistics.image_statistics(pixels)
    np.testing.assert_array_equal(parts.histogram, whole.histogram)
    np.testing.assert_array_equal(parts.hashes, whole.hashes)
    np.testing.assert_array_equal(parts.digests, whole.digests)
    np.testing.assert_allclose(parts.means, pixels.mean((1, 2)), rtol=1e-5)
    assert np.flatnonzero(parts.flat).tolist() == [3]


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (8, 9), (17, 5), (100, 100)])
def test_difference_hash_ignores_brightness_and_sees_mirrors(shape: tuple[int, int]) -> None:
    ramp = np.broadcast_to(np.linspace(0, 90, shape[1], dtype=np.float32), shape)[None]
    rising, brighter, falling = (statistics.difference_hash(x)[0] for x in (ramp, ramp + 50, ramp[:, :, ::-1]))
    assert rising == brighter
    assert falling == 0
    assert (rising == 0) == (shape[1] == 1)


def test_report_of_near_duplicate_rows() -> None:
    x = RANDOM.normal(size=(100, 3))
    x[50] = x[4] + 1e-7
    columns = {f"x{i}": Column(x[:, i]) for i in range(3)}
    findings = found(make_dataset("table", TableInputs(columns), None, None, np.array([0] * 50 + [2] * 50)))
    assert findings["near_duplicates"]["where"] == "row 51"
    assert findings["near_leakage"]["severity"] == "warning"


def test_find_drift_of_numbers_categories_classes_and_brightness() -> None:
    n = 400
    split = np.array([0] * 200 + [2] * 200)
    moved = split == 2
    columns = {
        "same": Column(RANDOM.normal(size=n)),
        "moved": Column(RANDOM.normal(size=n) + moved),
        "colour": categories_of([("red" if m else "blue") if RANDOM.random() < 0.8 else "green" for m in moved]),
    }
    table = report(make_dataset("table", TableInputs(columns), None, None, split), "", {})
    assert {f["where"] for f in table["findings"] if f["code"] == "drift"} == {'column "moved"', 'column "colour"'}
    pixels = RANDOM.integers(0, 50, (n, 4, 4, 3), np.uint8)
    pixels[moved, ..., 1] += 40
    images = report(make_dataset("images", ImageInputs(pixels), moved.astype(np.int64), ("a", "b"), split), "", {})
    wheres = {f["where"] for f in images["findings"] if f["code"] == "drift"}
    assert wheres == {"the mean of channel 1", "the share of the classes"}
    assert images["classes_by_split"] == {"train": {"a": 200, "b": 0}, "test": {"a": 0, "b": 200}}


@pytest.mark.parametrize("seed", range(5))
def test_find_drift_not_in_random_parts(seed: int) -> None:
    random = np.random.default_rng(seed)
    split = random.choice([0, 1, 2], 600, p=[0.6, 0.2, 0.2])
    columns = {f"x{i}": Column(random.normal(size=600)) for i in range(50)}
    columns["c"] = categories_of([f"c{i}" for i in random.integers(0, 12, 600)])
    assert "drift" not in found(make_dataset("table", TableInputs(columns), None, None, split))


def test_ks_equals_scipy() -> None:
    from scipy.stats import ks_2samp

    a, b = RANDOM.normal(size=200).round(1), RANDOM.normal(0.3, size=150).round(1)
    assert drift.ks(a, np.append(b, np.nan)) == pytest.approx(ks_2samp(a, b).statistic)


def test_statistics_of_columns_and_blank_images() -> None:
    columns = {"x": Column(np.array([1.0, 2.0, 3.0, np.nan, np.inf])), "empty": Column(np.full(5, np.nan))}
    statistics = report(make_dataset("table", TableInputs(columns), None, None, None), "", {})["column_statistics"]
    assert statistics["x"]["median"] == 2
    assert "empty" not in statistics
    pixels = np.stack([np.full((4, 4, 1), 7), RANDOM.integers(0, 256, (4, 4, 1))]).astype(np.uint8)
    assert (
        found(make_dataset("images", ImageInputs(pixels), None, None, None), names=["x", "y"])["blank_images"]["where"]
        == "x"
    )


def test_report_of_case_clashes_and_deep_images() -> None:
    assert image_loading.case_clashes(["Cat/1.png", "cat/1.png", "cat/2.png", "dog/A.png", "dog/a.png"]) == [
        ("Cat", "cat"),
        ("dog/A.png", "dog/a.png"),
    ]
    details = {"case_clashes": [("Cat", "cat")], "modes": {"I;16": 3}}
    assert {"case_clash", "reduced_depth"} <= found(Dataset.from_arrays(np.eye(3)), **details).keys()


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("user_id", True),
        ("movieId", True),
        ("ID", True),
        ("zip code", True),
        ("paid", False),
        ("grid", False),
        ("x", False),
    ],
)
def test_whole_numbers_in_a_column_named_like_an_id_are_pointed_out(name: str, named: bool) -> None:
    columns = {name: Column(np.arange(100.0) % 7), "label": categories_of(["a", "b"] * 50)}
    dataset = make_dataset("table", TableInputs(columns), None, None, None, target="label")
    listed = found(dataset)
    assert ("ids_as_numbers" in listed) == named
    if named:
        assert listed["ids_as_numbers"]["where"] == name


def test_an_id_that_is_the_target_or_a_flag_is_not_pointed_out() -> None:
    columns = {"code": Column(np.arange(100.0) % 2), "class_id": Column(np.arange(100.0) % 7)}
    dataset = make_dataset("table", TableInputs(columns), None, None, None, target="class_id")
    assert "ids_as_numbers" not in found(dataset)
