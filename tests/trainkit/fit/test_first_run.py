"""The shortest spec on a table: `model: mlp` and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

import trainkit as tk
from trainkit.data.dataset import Dataset
from trainkit.spec import SpecError, resolve
from trainkit.spec.preprocess import ZScore

CASES = Path(__file__).parents[2] / "data" / "cases"


@pytest.fixture(scope="module")
def cancer(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """scikit-learn's breast cancer table as the CSV that people have: 569 rows, 30 columns of different scales."""
    source = load_breast_cancer()
    table = tmp_path_factory.mktemp("tables") / "cancer.csv"
    rows = np.column_stack([source.data, source.target])
    header = ",".join([name.replace(" ", "_") for name in source.feature_names] + ["diagnosis"])
    np.savetxt(table, rows, fmt="%.8g", delimiter=",", header=header, comments="")
    return tk.load_dataset(table, target="diagnosis")


def test_an_mlp_without_options_is_good_on_columns_of_different_scales(cancer: Dataset) -> None:
    found = [
        tk.fit({"dataset": "cancer", "model": "mlp", "train": {"seed": seed}, "split": {"seed": seed}}, cancer)
        for seed in range(3)
    ]
    assert np.mean([one.evaluation["metrics"]["accuracy"] for one in found]) >= 0.95


def test_the_resolved_spec_says_what_was_chosen(cancer: Dataset) -> None:
    chosen = resolve({"dataset": "cancer", "model": "mlp"}, cancer.facts)
    assert chosen.spec.preprocess == (ZScore(),)
    (warning,) = [one for one in chosen.warnings if one.pointer == "/preprocess"]
    assert "z_score" in warning.message
    assert "`preprocess: []`" in warning.hint
    for given, steps in (([], ()), (["z_score"], (ZScore(),))):
        fixed = resolve({"dataset": "cancer", "model": "mlp", "preprocess": given}, cancer.facts)
        assert fixed.spec.preprocess == steps
        assert not [one for one in fixed.warnings if one.pointer == "/preprocess"]


@pytest.mark.parametrize("kind", ["gradient_boosting", "rbf_svm"])
def test_what_scikit_learn_fits_is_left_as_it_is(cancer: Dataset, kind: str) -> None:
    assert resolve({"dataset": "cancer", "model": kind}, cancer.facts).spec.preprocess == ()


def test_images_and_arrays_are_left_as_they_are() -> None:
    data = Dataset.from_arrays(np.zeros((20, 3), np.float32), np.arange(20) % 2)
    assert resolve({"dataset": "x", "model": "mlp"}, data.facts).spec.preprocess == ()


def test_batch_norm_of_single_samples_is_refused() -> None:
    data = tk.load_dataset(CASES / "bn_batch1.csv", target="y")
    document = json.loads((CASES / "bn_batch1.json").read_text())
    with pytest.raises(SpecError) as caught:
        resolve(document, data.facts)
    (problem,) = caught.value.problems
    assert (problem.pointer, problem.code) == ("/train/batch_size", "batch_norm_of_one")
    assert "2 or more" in problem.hint
    for changes in ({"model": {"kind": "mlp", "norm": "layer"}}, {"train": {"batch_size": 2}}):
        resolve(document | changes, data.facts)


def test_a_last_batch_of_one_sample_joins_the_one_before_it() -> None:
    x = np.random.default_rng(0).normal(size=(41, 3)).astype(np.float32)
    data = Dataset.from_arrays(x, np.arange(41) % 2)
    spec = {
        "dataset": "x",
        "model": {"kind": "mlp", "norm": "batch"},
        "split": {"train": 33, "validation": 8, "test": 0},
    }
    result = tk.fit(spec | {"train": {"batch_size": 4, "epochs": 1}}, data)
    assert result.stop_reason == "completed"


@pytest.mark.parametrize(
    ("model", "side", "refused"),
    [
        ({"kind": "cnn"}, 8, False),
        ({"kind": "cnn"}, 2, True),
        ({"kind": "cnn", "norm": "group"}, 2, False),
        ({"kind": "residual_cnn"}, 2, True),
        ({"kind": "residual_cnn"}, 8, False),
        ({"kind": "torchvision", "name": "vgg11"}, 32, False),
        ({"kind": "torchvision", "name": "resnet18"}, 32, True),
    ],
)
def test_images_of_a_batch_of_one_are_refused_where_a_channel_shrinks_to_one_value(
    model: dict[str, object], side: int, refused: bool
) -> None:
    data = Dataset.from_arrays(np.zeros((20, 3, side, side), np.float32), np.arange(20) % 2)
    document = {"dataset": "x", "model": model, "train": {"batch_size": 1}}
    if not refused:
        resolve(document, data.facts)
        return
    with pytest.raises(SpecError) as caught:
        resolve(document, data.facts)
    assert [problem.code for problem in caught.value.problems] == ["batch_norm_of_one"]
