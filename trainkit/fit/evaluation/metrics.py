"""Metrics of classification and regression from outputs and targets. numpy only, float64 sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
TOP_K = 5
CALIBRATION_BINS = 10
SAMPLES_A_CELL, MOST_CELLS = 12, 200
"""Misclassified samples that are listed: of each pair of classes, and pairs in all."""


def confusion_matrix(true: Ints, predicted: Ints, classes: int) -> NDArray[np.int64]:
    """(classes, classes) counts; row = true class, column = predicted class."""
    flat = np.asarray(true, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def per_class(confusion: NDArray[np.int64]) -> dict[str, Floats]:
    """precision = tp / predicted, recall = tp / true, f1 their harmonic mean; 0 where the denominator is 0."""
    hits = np.diag(confusion).astype(np.float64)
    predicted, support = confusion.sum(0).astype(np.float64), confusion.sum(1).astype(np.float64)
    precision = np.divide(hits, predicted, out=np.zeros_like(hits), where=predicted > 0)
    recall = np.divide(hits, support, out=np.zeros_like(hits), where=support > 0)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(hits), where=total > 0)
    return {"precision": precision, "recall": recall, "f1": f1, "support": support}


def binary_roc_auc(positive: NDArray[np.bool_], score: Floats) -> float:
    """P(score of a positive > score of a negative), ties half: by midranks. NaN with one class."""
    positives = int(positive.sum())
    negatives = positive.size - positives
    if positives == 0 or negatives == 0:
        return math.nan
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    midranks = ends - (counts - 1) / 2.0
    rank_sum = float(midranks[inverse.reshape(-1)][positive].sum())
    return (rank_sum - positives * (positives + 1) / 2.0) / (positives * negatives)


def roc_auc(true: Ints, scores: Floats) -> float:
    """Two classes: area under the ROC curve of class 1. More: the mean over classes of one against the rest.

    `scores` (n, K). Classes absent from `true` are left out of the mean; NaN when fewer than two are present.
    """
    if not np.isfinite(scores).all():
        return math.nan
    if scores.shape[1] == 2:
        return binary_roc_auc(true == 1, scores[:, 1] - scores[:, 0])
    areas = [binary_roc_auc(true == k, scores[:, k]) for k in range(scores.shape[1])]
    known = [area for area in areas if not math.isnan(area)]
    return float(np.mean(known)) if known else math.nan


def classification_metrics(true: Ints, scores: Floats, *, area: bool = True, errors: bool = False) -> dict[str, float]:
    """accuracy, top5_accuracy (more than 5 classes), macro precision / recall / f1, roc_auc; `scores` (n, K).

    The macro means run over the classes that occur as truth or prediction, as scikit-learn does. `errors`: also the
    standard errors accuracy_se = sqrt(p(1-p)/n) and recall_se = sqrt(sum_k r_k(1-r_k)/n_k) / K, of K independent shares.
    """
    classes = scores.shape[1]
    scores = np.where(np.isnan(scores), -np.inf, scores)  # a NaN beats nothing: every comparison with it is false
    predicted = scores.argmax(1)
    confusion = confusion_matrix(true, predicted, classes)
    occurring = (confusion.sum(0) + confusion.sum(1)) > 0
    values = per_class(confusion)
    metrics = {"accuracy": float(np.diag(confusion).sum() / max(true.size, 1))}
    if classes > TOP_K:
        metrics["top5_accuracy"] = top_k_accuracy(true, scores, TOP_K)
    for name in ("precision", "recall", "f1"):
        metrics[name] = float(values[name][occurring].mean()) if occurring.any() else 0.0
    if errors:
        metrics["accuracy_se"] = math.sqrt(metrics["accuracy"] * (1.0 - metrics["accuracy"]) / max(true.size, 1))
        shares, counts = values["recall"], np.maximum(values["support"], 1.0)
        metrics["recall_se"] = math.sqrt(float((shares * (1.0 - shares) / counts).sum())) / max(int(occurring.sum()), 1)
    if area:
        metrics["roc_auc"] = roc_auc(true, scores)
    return metrics


def top_k_accuracy(true: Ints, scores: Floats, k: int) -> float:
    """Share of samples whose true class is among the k largest scores; ties go to the lower class index."""
    true_score = scores[np.arange(true.size), true][:, None]
    index = np.arange(scores.shape[1])[None, :]
    ahead = (scores > true_score) | ((scores == true_score) & (index < true[:, None]))
    return float((ahead.sum(1) < k).mean()) if true.size else 0.0


def regression_metrics(true: Floats, predicted: Floats, *, errors: bool = False) -> dict[str, float]:
    """mse, mae and R2 = 1 - SSE/SST in the targets' own units; the mean over targets when there are several.

    A constant target has R2 1 when hit exactly and 0 otherwise, as in scikit-learn. `errors`: also the standard errors
    mse_se and mae_se, s/sqrt(n) of the samples' values, and r2_se by the delta method: that of the mean over samples of
    (e^2 - (1 - R2) (y - mean y)^2) / (SST / n).
    """
    truth = np.asarray(true, np.float64).reshape(len(true), -1)
    error = np.asarray(predicted, np.float64).reshape(len(true), -1) - truth
    if not np.isfinite(error).all():
        names = ("mse", "mae", "r2", *(("mse_se", "mae_se", "r2_se") if errors else ()))
        return dict.fromkeys(names, math.nan)
    squares = (error**2).sum(0)
    deviations = (truth - truth.mean(0)) ** 2
    spread = deviations.sum(0)
    fixed = spread == 0
    r2 = 1.0 - squares / np.where(fixed, 1.0, spread)
    r2 = np.where(fixed, (squares == 0).astype(np.float64), r2)
    metrics = {"mse": float((error**2).mean()), "mae": float(np.abs(error).mean()), "r2": float(r2.mean())}
    if errors:
        moves = np.where(fixed, 0.0, (error**2 - (1.0 - r2) * deviations) / np.where(fixed, 1.0, spread / len(truth)))
        for name, samples in (("mse", error**2), ("mae", np.abs(error)), ("r2", moves)):
            metrics[f"{name}_se"] = _standard_error(samples.mean(1))
    return metrics


def _standard_error(values: Floats) -> float:
    """Of their mean: s/sqrt(n), with n - 1 in s; 0 of a single one."""
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def probabilities(outputs: NDArray[Any], loss: str) -> NDArray[np.float64]:
    """Softmax of the raw outputs; what a sigmoid or squared loss was trained to give, normalised, for those two.

    For hinge the softmax of margins is an order of preference, not a calibrated probability.
    """
    z = outputs.astype(np.float64)
    if loss == "binary_cross_entropy":
        shares = 1.0 / (1.0 + np.exp(-np.clip(z, -500, 500)))
    elif loss == "mse":
        shares = np.clip(z, 0.0, None)
    else:
        shares = np.exp(z - z.max(axis=1, keepdims=True))
    total = shares.sum(axis=1, keepdims=True)
    uniform = np.full_like(shares, 1.0 / max(shares.shape[1], 1))
    return np.where(total > 0, shares / np.where(total > 0, total, 1.0), uniform)


def calibration(true: Ints, shares: Floats) -> dict[str, Any] | None:
    """Return how far confidence is from accuracy: `{expected_calibration_error, bins}`; None without finite shares.

    The confidence of a sample is its largest class probability. Bins are of equal width; empty ones are left out. The
    error is sum_b n_b / n |accuracy_b - confidence_b| (Guo et al. 2017, arXiv 1706.04599).
    """
    if not true.size or not np.isfinite(shares).all():
        return None
    confidence, right = shares.max(1), shares.argmax(1) == true
    place = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    bins, error = [], 0.0
    for bin_ in range(CALIBRATION_BINS):
        inside = place == bin_
        if not inside.any():
            continue
        mean, accuracy = float(confidence[inside].mean()), float(right[inside].mean())
        error += int(inside.sum()) / true.size * abs(accuracy - mean)
        low, high = bin_ / CALIBRATION_BINS, (bin_ + 1) / CALIBRATION_BINS
        count = int(inside.sum())
        bins.append({"low": low, "high": high, "samples": count, "confidence": mean, "accuracy": accuracy})
    return {"expected_calibration_error": error, "bins": bins}


def misclassified(true: Ints, scores: Floats, index: Ints) -> list[dict[str, Any]]:
    """Return `{actual, predicted, samples}` for pairs of classes that were confused, the most frequent ones first.

    `samples`: up to SAMPLES_A_CELL of `index`, those first whose score of the predicted class is furthest above the score
    of the true one.
    """
    predicted = np.where(np.isnan(scores), -np.inf, scores).argmax(1)
    rows = np.flatnonzero(predicted != true)
    above = scores[rows, predicted[rows]] - scores[rows, true[rows]]
    rows = rows[np.argsort(-np.nan_to_num(above), kind="stable")]
    cells: dict[tuple[int, int], list[int]] = {}
    for row in rows.tolist():
        cells.setdefault((int(true[row]), int(predicted[row])), []).append(int(index[row]))
    frequent = sorted(cells.items(), key=lambda cell: (-len(cell[1]), cell[0]))[:MOST_CELLS]
    return [{"actual": t, "predicted": p, "samples": samples[:SAMPLES_A_CELL]} for (t, p), samples in frequent]
