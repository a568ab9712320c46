"""The closed list of metrics: names, descriptions, and which direction is better for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from trainkit.spec.problems import Problem
from trainkit.spec.synonyms import suggest_kind

SPLITS = ("train", "val", "test")
Direction = Literal["min", "max"]
DIRECTIONS: dict[str, Direction] = {
    "loss": "min",
    "accuracy": "max",
    "top5_accuracy": "max",
    "precision": "max",
    "recall": "max",
    "f1": "max",
    "roc_auc": "max",
    "mse": "min",
    "mae": "min",
    "r2": "max",
}
"""Whether the smaller or the larger value of a metric is the better one."""
Bounds = tuple[float | None, float | None]
BOUNDS: dict[str, Bounds] = {
    **dict.fromkeys(("accuracy", "top5_accuracy", "precision", "recall", "f1", "roc_auc"), (0.0, 1.0)),
    **dict.fromkeys(("loss", "mse", "mae"), (0.0, None)),
    "r2": (None, 1.0),
}
"""The least and the largest value that a metric can have."""
LOGGED_DIRECTIONS: dict[str, Direction] = {**DIRECTIONS, "batch_loss": "min"}
"""The same of all logged series that have a best value; rules and searches cannot monitor `batch_loss`."""
BEST_METRICS = tuple(f"{split}_{name}" for split in SPLITS for name in LOGGED_DIRECTIONS)
"""Names of a job's best values: `val_accuracy`, `train_batch_loss` ..."""
METRICS_WITH_STANDARD_ERROR = ("loss", "accuracy", "recall", "mse", "mae", "r2")
"""Metrics whose validation value is logged together with its standard error, e.g. `val_loss_se`."""
METRIC_DESCRIPTIONS = {
    "loss": "The spec's loss, without penalties; with class weights sum(w*l) / sum(w).",
    "accuracy": "Share of samples whose class is predicted.",
    "top5_accuracy": "Share of samples whose class is among the 5 likeliest; with more than 5 classes.",
    "precision": "Mean over the classes of tp / (tp + fp).",
    "recall": "Mean over the classes of tp / (tp + fn).",
    "f1": "Mean over the classes of 2 * precision * recall / (precision + recall).",
    "roc_auc": "Area under the ROC curve of the predicted probabilities; the mean of one against the rest beyond 2 classes.",
    "mse": "Mean squared error in the targets' own units.",
    "mae": "Mean absolute error in the targets' own units.",
    "r2": "1 - SSE / SST.",
}
CLASSIFICATION_METRICS = ("loss", "accuracy", "top5_accuracy", "precision", "recall", "f1", "roc_auc")
REGRESSION_METRICS = ("loss", "mse", "mae", "r2")


def split_metric(name: str) -> tuple[str, str]:
    """`val_accuracy` -> (`val`, `accuracy`). Raises ValueError for anything outside the closed list."""
    split, _, metric = name.partition("_")
    if split not in SPLITS or metric not in DIRECTIONS:
        known = ", ".join(f"val_{metric}" for metric in DIRECTIONS)
        raise ValueError(f"unknown metric {name!r}: write train_ or val_ before a metric, one of {known}")
    return split, metric


def direction(name: str) -> Direction:
    """Return "min" or "max": which values of `val_accuracy`, `train_loss` ... are better."""
    return DIRECTIONS[split_metric(name)[1]]


def bounds(name: str) -> Bounds:
    """Return (least, largest) possible value of `val_accuracy`, `test_loss` ...; None: there is none."""
    return BOUNDS[split_metric(name)[1]]


def with_mode(rule: Any) -> Any:
    """The rule or schedule with its metric's own direction for `auto`."""
    return rule.model_copy(update={"mode": direction(rule.monitor)}) if getattr(rule, "mode", None) == "auto" else rule


def metric_problem(where: str, monitor: str, choices: Sequence[str]) -> Problem | None:
    """Why nothing can watch `monitor`, the metric at `where`/monitor: it is not among all metrics, or of the test part."""
    try:
        part, metric = split_metric(monitor)
    except ValueError:
        hint = " ".join(word for word in (suggest_kind(monitor, choices), f"Choices: {', '.join(choices)}.") if word)
        return Problem(f"{where}/monitor", "unknown_metric", f"unknown metric {monitor!r}", hint)
    if part == "test":
        message = "the test part must not decide anything"
        return Problem(f"{where}/monitor", "test_is_held_out", message, f"Use val_{metric}.")
    return None


def mode_problem(where: str, monitor: str, mode: str) -> Problem | None:
    """Why `mode` contradicts the direction of a known metric; None for "auto"."""
    better = direction(monitor)
    if mode in ("auto", better):
        return None
    message = f"{monitor} is better when {'smaller' if better == 'min' else 'larger'}"
    return Problem(f"{where}/mode", "wrong_mode", message, f'Use "{better}".')
