"""The closed list of metric names, and which direction is better for each."""

from __future__ import annotations

from typing import Literal

SPLITS = ("train", "val", "test")
DIRECTIONS: dict[str, Literal["min", "max"]] = {
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
CLASSIFICATION_METRICS = ("loss", "accuracy", "top5_accuracy", "precision", "recall", "f1", "roc_auc")
REGRESSION_METRICS = ("loss", "mse", "mae", "r2")


def split_metric(name: str) -> tuple[str, str]:
    """`val_accuracy` -> (`val`, `accuracy`). Raises ValueError for anything outside the closed list."""
    split, _, metric = name.partition("_")
    if split not in SPLITS or metric not in DIRECTIONS:
        known = ", ".join(f"val_{metric}" for metric in DIRECTIONS)
        raise ValueError(f"unknown metric {name!r}: write train_ or val_ before a metric, one of {known}")
    return split, metric


def direction(name: str) -> Literal["min", "max"]:
    """Whether smaller or larger values of `val_accuracy`, `train_loss` ... are better."""
    return DIRECTIONS[split_metric(name)[1]]
