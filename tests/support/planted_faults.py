"""Runs on real digits with a fault planted in the spec or the data."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from trainkit.data import Dataset
from trainkit.diagnose.diagnosis import Diagnosis
from trainkit.fit.fit_and_diagnose import fit_and_diagnose


def run(data: Dataset, **spec: Any) -> Diagnosis:
    """Train, and diagnose what was recorded, as the service does."""
    train = {"batch_size": 32, "threads": 1, **spec.pop("train", {})}
    resources = {"device": "cpu"}
    document = {"dataset": "d", "model": {"kind": "mlp"}, "train": train, "resources": resources, **spec}
    found = fit_and_diagnose(document, data)
    assert found.error is None or found.error["code"] == "loss_not_finite", found.error
    return found.diagnosis


def digits(noise: float = 0.0) -> Dataset:
    """Pixels from 0 to 1; a share of all labels drawn anew."""
    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    drawn = rng.random(len(y)) < noise
    y = np.where(drawn, rng.integers(0, 10, len(y)), y)
    return Dataset.from_arrays((x / 16).astype(np.float32), y.astype(np.int64))


RELU = {"kind": "mlp", "hidden": [64, 32]}


SHORT = {"epochs": 8}


def drawn(**init: Any) -> dict[str, Any]:
    return {"model": {**RELU, "init": init}, "train": SHORT}
