"""Small datasets and specs that the tests of `trainkit.fit` share."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainkit.data import Column, Dataset, ImageInputs, SequenceInputs, TableInputs
from trainkit.data.dataset import categories_of, make_dataset

TABLE_ROWS: list[dict[str, Any]] = [{"x": 0.1, "town": "Bonn"}, {"x": None, "town": "Rome"}]
"""What a client could send to a model of `table`; Rome is in no training row."""


def vectors(n: int = 120, d: int = 6, classes: int = 3, seed: int = 0) -> Dataset:
    """Gaussian clouds, one a class."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centres = rng.normal(size=(classes, d)) * 2.0
    return Dataset.from_arrays((centres[y] + rng.normal(size=(n, d))).astype(np.float32), y.astype(np.int64))


def images(n: int = 96, side: int = 8, classes: int = 2, channels: int = 1, seed: int = 0) -> Dataset:
    """A bright bar, lying in class 0 and standing in class 1, on noise; uint8 (n, H, W, C)."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 80, size=(n, side, side, channels), dtype=np.uint8)
    y = (np.arange(n) % classes).astype(np.int64)
    for image, label in zip(pixels, y, strict=True):
        place = int(rng.integers(1, side - 1))
        if label % 2 == 0:
            image[place] += 150
        else:
            image[:, place] += 150
    return make_dataset("images", ImageInputs(pixels), y, [f"class {k}" for k in range(classes)], None)


def numbers(n: int = 150, d: int = 4, seed: int = 0) -> Dataset:
    """y = 100 + 30 * (a linear function of x), noise-free: far from unit scale."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    return Dataset.from_arrays(x, (100.0 + 30.0 * x @ np.arange(1, d + 1)).astype(np.float64))


def sequences(n: int = 80, seed: int = 0, shortest: int = 3, longest: int = 9) -> Dataset:
    """Class 1 rises, class 0 falls; two features, lengths from `shortest` to `longest`."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) % 2).astype(np.int64)
    lengths = rng.integers(shortest, longest + 1, size=n)
    xs = []
    for label, length in zip(y, lengths, strict=True):
        slope = (1.0 if label else -1.0) * np.arange(length)[:, None] / 3.0
        xs.append((slope + rng.normal(scale=0.5, size=(length, 2))).astype(np.float32))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return make_dataset("sequences", SequenceInputs(np.concatenate(xs), offsets), y, ["falls", "rises"], None)


def table(n: int = 90) -> Dataset:
    """Three classes by a number with gaps and by a town."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    columns = {
        "x": Column(np.where(np.arange(n) % 7 == 0, np.nan, y + rng.normal(size=n) * 0.3)),
        "town": categories_of([["Bonn", "Ulm", "Kiel"][k] for k in y]),
        "y": categories_of([["low", "mid", "high"][k] for k in y]),
    }
    return make_dataset("table", TableInputs(columns), None, None, None, target="y")


def spec(model: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A quick spec: 3 epochs, batch 16, one thread."""
    train = {"epochs": 3, "batch_size": 16, "threads": 1, **fields.pop("train", {})}
    return {"dataset": "data", "model": model, "train": train, **fields}
