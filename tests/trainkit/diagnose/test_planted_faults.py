"""Real runs with one fault planted in each: the planted verdict comes first. And sound ones: nothing is found.

The data come with scikit-learn. Thresholds have reasons of their own, which stand beside them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

from tests.support.planted_faults import RELU, SHORT, digits, drawn, run
from trainkit.data import Dataset

Z = [{"kind": "z_score"}]


WEAK = [9, 11, 14, 18, 19]
"""Fractal dimension, and the errors of texture, smoothness, symmetry and fractal dimension: they tell little."""


def cancer(rare: int | None = None, columns: list[int] | slice = slice(None)) -> Dataset:
    """30 measurements from 0.001 to 4000, or some of them; only so many malignant ones."""
    x, y = load_breast_cancer(return_X_y=True)
    kept = np.concatenate([np.flatnonzero(y == 1), np.flatnonzero(y == 0)[:rare]])
    return Dataset.from_arrays(x[kept][:, columns].astype(np.float32), y[kept].astype(np.int64))


def diabetes() -> Dataset:
    x, y = load_diabetes(return_X_y=True)
    return Dataset.from_arrays(x.astype(np.float32), y.astype(np.float64))


WIDE = {"kind": "mlp", "hidden": [256, 128]}


def rate(kind: str, lr: float) -> dict[str, Any]:
    return {"model": RELU, "optimizer": {"kind": kind, "lr": lr}, "train": SHORT}


DEEP = {"kind": "mlp", "hidden": [32] * 6, "activation": "sigmoid"}
PARTS = {"split": "6:2:2"}
CASES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "adam at 0.5": ("learning_rate_too_high", digits, rate("adam", 0.5)),
    "sgd at 20": ("learning_rate_too_high", digits, rate("sgd", 20.0)),
    "adam at 1e-7": ("learning_rate_too_low", digits, rate("adam", 1e-7)),
    "sgd at 1e-5": ("learning_rate_too_low", digits, rate("sgd", 1e-5)),
    "diabetes by heart": (
        "overfitting",
        diabetes,
        {**PARTS, "preprocess": Z, "model": WIDE, "optimizer": {"kind": "adam", "lr": 3e-3}, "train": {"epochs": 40}},
    ),
    "negative weights": ("dead_units", digits, drawn(kind="uniform", low=-0.3, high=-0.01)),
    "zeros": ("symmetric_initialization", digits, drawn(kind="zeros")),
    "raw inputs": (
        "unscaled_inputs",
        cancer,
        {**PARTS, "model": RELU, "optimizer": {"kind": "sgd", "lr": 0.1}, "train": {"epochs": 15}},
    ),
    "wrong labels": ("label_noise", lambda: digits(noise=0.4), {**PARTS, "model": WIDE, "train": {"epochs": 60}}),
    "a rare class": (
        "class_imbalance",
        lambda: cancer(40, WEAK),
        {"split": "4:3:3", "preprocess": Z, "model": {"kind": "mlp", "hidden": [16]}, "train": {"epochs": 30}},
    ),
    "deep sigmoids": ("vanishing_gradients", digits, {**rate("sgd", 0.1), "model": DEEP}),
    "sound digits": ("healthy", digits, {**PARTS, "model": {**RELU, "dropout": 0.2}, "train": {"epochs": 30}}),
    "sound cancer": (
        "healthy",
        cancer,
        {**PARTS, "preprocess": Z, "model": {"kind": "mlp", "hidden": [16]}, "train": {"epochs": 25}},
    ),
    "sound diabetes": (
        "inconclusive",  # half of the variance is explained, and nothing says that more is attainable or not
        diabetes,
        {**PARTS, "preprocess": Z, "model": {"kind": "mlp", "hidden": [16], "dropout": 0.2}, "train": {"epochs": 30}},
    ),
    "sound linear": (
        "healthy",
        digits,
        {**PARTS, "model": {"kind": "linear"}, "optimizer": {"kind": "adam", "lr": 0.01}, "train": {"epochs": 30}},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_diagnose_lists_the_planted_fault_first(name: str) -> None:
    planted, data, spec = CASES[name]
    found = run(data(), **spec)
    assert found.verdicts[0].code == planted, found.verdicts
    assert found.final
    assert bool(found.recommendations) == (planted != "healthy")
