"""Tables of scikit-learn as CSV, with a spec that trains badly on them."""

from __future__ import annotations

from typing import Any

from sklearn.datasets import load_wine

UNSCALED: dict[str, Any] = {
    "model": {"kind": "mlp", "hidden": [32]},
    "preprocess": [],
    "optimizer": {"kind": "sgd", "lr": 0.01},
    "train": {"epochs": 60, "batch_size": 16, "log_stats": "totals"},
    "split": {"train": 0.6, "validation": 0.3, "test": 0.1},
}
"""Inputs from 0.1 to 1700 without scaling: with plain SGD the network does not learn."""


def wine() -> bytes:
    """178 wines of three kinds, by 13 measurements of very different size."""
    data = load_wine()
    rows = [[*map(repr, map(float, row)), f"kind {label}"] for row, label in zip(data.data, data.target, strict=True)]
    names = [name.replace("/", "_") for name in data.feature_names]
    return "\n".join(",".join(row) for row in [[*names, "target"], *rows]).encode()
