"""Against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from sklearn import metrics as sk

from trainkit import losses
from trainkit.fit.encoding.prepare import Part
from trainkit.fit.evaluation import metrics
from trainkit.fit.evaluation.evaluate import measure
from trainkit.spec.losses import LossSpec


def sample(n: int, classes: int, seed: int, coarse: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, n)
    scores = rng.normal(size=(n, classes)) + np.eye(classes)[true]
    return true, np.round(scores) if coarse else scores


@pytest.mark.parametrize("classes", [2, 3, 8])
@pytest.mark.parametrize("coarse", [False, True], ids=["continuous", "many ties"])
def test_classification(classes, coarse):
    true, scores = sample(200, classes, classes, coarse)
    got = metrics.classification_metrics(true, scores)
    predicted = scores.argmax(1)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(true, predicted, average="macro", zero_division=0)
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(true, predicted))
    assert [got["precision"], got["recall"], got["f1"]] == pytest.approx([precision, recall, f1])
    if classes == 2:
        area = sk.roc_auc_score(true, scores[:, 1] - scores[:, 0])
    else:
        area = np.mean([sk.roc_auc_score(true == k, scores[:, k]) for k in range(classes)])
    assert got["roc_auc"] == pytest.approx(area)
    assert ("top5_accuracy" in got) == (classes > 5)
    if classes > 5 and not coarse:
        assert got["top5_accuracy"] == pytest.approx(sk.top_k_accuracy_score(true, scores, k=5))


def test_per_class_and_confusion():
    true, scores = sample(100, 4, 0)
    predicted = scores.argmax(1)
    confusion = metrics.confusion_matrix(true, predicted, 4)
    assert np.array_equal(confusion, sk.confusion_matrix(true, predicted, labels=range(4)))
    values = metrics.per_class(confusion)
    expected = sk.precision_recall_fscore_support(true, predicted, labels=range(4), zero_division=0)
    for name, column in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert values[name] == pytest.approx(column)


def test_a_class_nobody_has_or_predicts_is_no_part_of_the_macro_mean():
    true, scores = sample(50, 3, 1)
    wide = np.concatenate([scores, np.full((50, 1), -99.0)], axis=1)
    expected = sk.f1_score(true, wide.argmax(1), average="macro")
    assert metrics.classification_metrics(true, wide)["f1"] == pytest.approx(expected)


def test_ties_in_top_k_go_to_the_lower_index():
    assert metrics.top_k_accuracy(np.array([0, 2]), np.zeros((2, 3)), 2) == 0.5


def test_outputs_that_are_not_finite_score_nothing_by_accident():
    scores = np.full((10, 7), np.nan)
    got = metrics.classification_metrics(np.full(10, 6), scores)
    assert (got["accuracy"], got["top5_accuracy"]) == (0.0, 0.0)
    assert math.isnan(got["roc_auc"])


def test_one_class_has_no_roc_area():
    assert math.isnan(metrics.roc_auc(np.zeros(5, int), np.random.default_rng(0).normal(size=(5, 2))))


@pytest.mark.parametrize("kind", ["cross_entropy", "binary_cross_entropy", "mse"])
def test_the_measured_roc_area_is_scikit_learns_of_the_predicted_probabilities(kind):
    true, scores = sample(300, 4, 7)
    scores = (scores + np.random.default_rng(8).normal(size=(300, 1)) * 3).astype(np.float32)  # a level of its own each
    part = Part("val", torch.zeros(300, 1), None, torch.from_numpy(true), true, False, np.arange(300))
    loss = losses.build(TypeAdapter(LossSpec).validate_python({"kind": kind}), outputs=4)
    got = measure(torch.from_numpy(scores), part, loss, kind=kind)["roc_auc"]
    shares = metrics.probabilities(scores, kind)
    assert got == pytest.approx(sk.roc_auc_score(true, shares, multi_class="ovr"))


@pytest.mark.parametrize("k", [1, 3])
def test_regression(k):
    rng = np.random.default_rng(k)
    true = rng.normal(size=(60, k)) * 1e3
    predicted = true + rng.normal(size=(60, k))
    got = metrics.regression_metrics(true, predicted)
    expected = [sk.mean_squared_error, sk.mean_absolute_error, sk.r2_score]
    assert [got["mse"], got["mae"], got["r2"]] == pytest.approx([score(true, predicted) for score in expected])


def test_regression_corner_cases():
    assert metrics.regression_metrics(np.ones(4), np.ones(4))["r2"] == 1.0
    assert metrics.regression_metrics(np.ones(4), np.zeros(4))["r2"] == 0.0
    assert math.isnan(metrics.regression_metrics(np.ones(2), np.array([1.0, np.nan]))["mse"])


def test_calibration_is_that_of_scikit_learn() -> None:
    from sklearn.calibration import calibration_curve

    rng = np.random.default_rng(0)
    shares = rng.dirichlet((0.5, 1, 2), 500)
    true = np.array([rng.choice(3, p=row**2 / (row**2).sum()) for row in shares])
    found = metrics.calibration(true, shares)
    assert found is not None
    right = shares.argmax(1) == true
    accuracy, confidence = calibration_curve(right, shares.max(1), n_bins=metrics.CALIBRATION_BINS)
    assert [one["accuracy"] for one in found["bins"]] == pytest.approx(accuracy.tolist())
    assert [one["confidence"] for one in found["bins"]] == pytest.approx(confidence.tolist())
    assert sum(one["samples"] for one in found["bins"]) == 500
    gaps = [one["samples"] / 500 * abs(one["accuracy"] - one["confidence"]) for one in found["bins"]]
    assert found["expected_calibration_error"] == pytest.approx(sum(gaps))
    assert metrics.calibration(true, np.full((500, 3), np.nan)) is None


def test_misclassified_samples_are_listed_by_pair_the_surest_mistakes_first() -> None:
    rng = np.random.default_rng(1)
    true, scores = rng.integers(0, 4, 600), rng.normal(size=(600, 4))
    index = rng.permutation(10_000)[:600]
    confusion = metrics.confusion_matrix(true, scores.argmax(1), 4)
    cells = metrics.misclassified(true, scores, index)
    counts = [int(confusion[cell["actual"], cell["predicted"]]) for cell in cells]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == confusion.sum() - np.diag(confusion).sum()
    place = {position: row for row, position in enumerate(index.tolist())}
    for cell, count in zip(cells, counts, strict=True):
        assert len(cell["samples"]) == min(count, metrics.SAMPLES_A_CELL)
        rows = [place[position] for position in cell["samples"]]
        assert {(true[row], scores[row].argmax()) for row in rows} == {(cell["actual"], cell["predicted"])}
        gaps = [scores[row, cell["predicted"]] - scores[row, cell["actual"]] for row in rows]
        assert gaps == sorted(gaps, reverse=True)
