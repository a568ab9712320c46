"""The closed list of metric names, and which direction is better for each."""

from __future__ import annotations

from typing import Literal

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
LOGGED_DIRECTIONS: dict[str, Direction] = {**DIRECTIONS, "batch_loss": "min"}
"""The same of all logged series that have a best value; rules and searches cannot monitor `batch_loss`."""
METRICS_WITH_STANDARD_ERROR = ("loss", "accuracy", "recall", "mse", "mae", "r2")
"""Metrics whose validation value is logged together with its standard error, e.g. `val_loss_se`."""
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
