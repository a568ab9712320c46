"""Real data that scikit-learn and the examples carry, and the faults that lie in data, planted by a seeded recipe."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.datasets
from numpy.typing import NDArray

from examples.real_data import fetch
from trainkit.data import Dataset
from trainkit.data.dataset import Column, SequenceInputs, TableInputs, categories_of, make_dataset

Array = NDArray[Any]
FILES = Path(__file__).parents[2] / ".cache/data"
ASIDE = 0.25
"""Share of the samples that no run sees where the parts of the dataset are not to be trusted."""


@dataclass(frozen=True, slots=True)
class BenchmarkData:
    """A dataset, and for parts that are not to be trusted samples that it does not hold: (X, y)."""

    dataset: Dataset
    aside: tuple[Array, Array] | None = None


def benchmark_data(recipe: Mapping[str, Any]) -> BenchmarkData:
    """The dataset of a recipe: `base`, `n` of its samples, and what is planted in them.

    noise: share of labels drawn anew. rare: {class: samples kept}. columns: those kept. factor: times the inputs.
    whole: classes as numbers to predict. outliers: share of targets moved by 15 deviations. image: side of the
    pictures. sort: the shipped test part is what comes last by that column. change: what was done to the shipped test
    part. leak: share of the shipped held-out samples that training holds, too. copies: times that each sample occurs.
    """
    plan = dict(recipe)
    random = np.random.default_rng(plan.pop("seed", 0))
    base = plan.pop("base")
    x, y = BASES[base]()
    if not isinstance(x, np.ndarray):
        return BenchmarkData(_others(x, y, plan, random))
    kept = random.permutation(len(y))[: plan.pop("n", None)]
    x, y = x[kept], y[kept]
    if base == "rows":
        x = x.reshape(-1, 28, 28)
    if rare := plan.pop("rare", None):
        x, y = _thinned(x, y, rare)
    if (columns := plan.pop("columns", None)) is not None:
        x = x[:, columns]
    y = _labels(y, plan, random)
    x = x * np.float32(plan.pop("factor", 1.0))
    sort, change, leak = plan.pop("sort", None), plan.pop("change", None), plan.pop("leak", 0.0)
    copies, side = plan.pop("copies", 1), plan.pop("image", None)
    if plan:
        raise ValueError(f"no such ingredients: {', '.join(plan)}")
    split: Array | None = None
    aside = None
    if sort is not None or change is not None or leak or copies > 1:
        split, aside = _parts(x, sort, random)
        if change is not None:
            x = np.where((split == 2)[:, None] | aside[:, None], CHANGES[change](x, random), x)
        outside = (x[aside], y[aside])
        x, y, split = x[~aside], y[~aside], split[~aside]
        if leak:
            x, y, split = _leaky(x, y, split, leak, random)
    if copies > 1:
        x, y, split = np.tile(x, (copies, *[1] * (x.ndim - 1))), np.tile(y, copies), None
    shape = (-1, 1, side, side) if side else x.shape
    if base == "rows":
        return BenchmarkData(_sequences(list(x), y, split))
    dataset = Dataset.from_arrays(x.reshape(shape), y, split=split)
    return BenchmarkData(dataset, None if aside is None else (outside[0].reshape((-1, *shape[1:])), outside[1]))


def _labels(y: Array, plan: dict[str, Any], random: np.random.Generator) -> Array:
    """The targets with what is planted in them."""
    if noise := plan.pop("noise", 0.0):
        y = np.where(random.random(len(y)) < noise, random.choice(y, len(y)), y)
    if outliers := plan.pop("outliers", 0.0):
        y = y + (random.random(len(y)) < outliers) * random.choice([-15.0, 15.0], len(y)) * y.std()
    return y.astype(np.float64) if plan.pop("whole", False) else y


def _thinned(x: Array, y: Array, rare: Mapping[int, int]) -> tuple[Array, Array]:
    kept = np.ones(len(y), bool)
    for label, count in rare.items():
        kept[np.flatnonzero(y == label)[count:]] = False
    return x[kept], y[kept]


def _parts(x: Array, sort: int | None, random: np.random.Generator) -> tuple[Array, Array]:
    """(codes of the shipped parts 6:2:2, those set aside). By a column the test part and what is set aside come last."""
    n = len(x)
    order = random.permutation(n) if sort is None else np.argsort(x[:, sort], kind="stable")
    held = int(n * (0.2 + ASIDE))
    last = random.permutation(order[n - held :])
    rest = random.permutation(order[: n - held])
    split, aside = np.zeros(n, np.int8), np.zeros(n, bool)
    aside[last[: int(n * ASIDE)]] = True
    split[last[int(n * ASIDE) :]] = 2
    split[rest[: n // 5]] = 1
    return split, aside


def _leaky(x: Array, y: Array, split: Array, share: float, random: np.random.Generator) -> tuple[Array, Array, Array]:
    """Of the held-out samples a share stands in the training part once more."""
    held = np.flatnonzero(split)
    again = random.permutation(held)[: int(share * len(held))]
    codes = np.concatenate([split, np.zeros(len(again), np.int8)])
    return np.concatenate([x, x[again]]), np.concatenate([y, y[again]]), codes


def _others(x: Any, y: Array, plan: dict[str, Any], random: np.random.Generator) -> Dataset:
    """Tables and sequences: samples drawn, labels drawn anew, and classes thinned; no more can be planted in them."""
    kept = random.permutation(len(y))[: plan.pop("n", None)]
    if rare := plan.pop("rare", None):
        kept = _thinned(kept, y[kept], rare)[0]
    y = _labels(y[kept], plan, random)
    if plan:
        raise ValueError(f"no such ingredients: {', '.join(plan)}")
    if isinstance(x, list):
        return _sequences([x[i] for i in kept], y, None)
    columns = {name: Column(column.values[kept], column.categories) for name, column in x.items()}
    names = ("<=50K", ">50K")
    columns["income"] = Column(y.astype(np.int32), names)
    table = make_dataset("table", TableInputs(columns), None, None, None)
    return table.with_target("income")


def _sequences(samples: list[Array], y: Array, split: Array | None) -> Dataset:
    offsets = np.concatenate([[0], np.cumsum([len(sample) for sample in samples])])
    inputs = SequenceInputs(np.concatenate(samples).astype(np.float32), offsets)
    names = [str(label) for label in range(int(y.max()) + 1)]
    return make_dataset("sequences", inputs, y.astype(np.int64), names, split)


def _of_sklearn(name: str, scale: float = 1.0) -> Callable[[], tuple[Array, Array]]:
    def read() -> tuple[Array, Array]:
        x, y = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
        return (x / scale).astype(np.float32), y

    return read


@cache
def _fashion() -> tuple[Array, Array]:
    """60,000 pictures of 784 pixels from 0 to 1."""
    with zipfile.ZipFile(fetch("fashion-mnist", FILES)) as archive:
        found = {name: gzip.decompress(archive.read(name)) for name in archive.namelist() if "train" in name}
    pixels = next(raw for name, raw in found.items() if "images" in name)
    labels = next(raw for name, raw in found.items() if "labels" in name)
    x = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 784)
    return x[:20000].astype(np.float32) / 255, np.frombuffer(labels, np.uint8, offset=8)[:20000].astype(np.int64)


@cache
def _california() -> tuple[Array, Array]:
    from pyarrow.parquet import read_table

    table = read_table(fetch("california", FILES))
    x = np.stack([table[name].to_numpy() for name in table.column_names if name != "MedHouseVal"], 1)
    return x.astype(np.float32), table["MedHouseVal"].to_numpy()


@cache
def _adult() -> tuple[dict[str, Column], Array]:
    from pyarrow.parquet import read_table

    table = read_table(fetch("adult", FILES))
    columns = {}
    for name in table.column_names:
        values = table[name].to_pylist()
        columns[name] = categories_of(values) if isinstance(values[0], str) else Column(np.array(values, np.float64))
    income = columns.pop("income")
    columns.pop("native-country")
    return columns, np.asarray(income.values).astype(np.int64)


@cache
def _vowels() -> tuple[list[Array], Array]:
    with np.load(fetch("vowels", FILES), allow_pickle=False) as file:
        values, offsets, y = file["values"], file["offsets"], file["y"]
    return [values[a:b] for a, b in pairwise(offsets)], y - y.min()


BASES: dict[str, Callable[[], tuple[Any, Array]]] = {
    "digits": _of_sklearn("digits", 16.0),
    "cancer": _of_sklearn("breast_cancer"),
    "wine": _of_sklearn("wine"),
    "iris": _of_sklearn("iris"),
    "diabetes": _of_sklearn("diabetes"),
    "fashion": _fashion,
    "rows": _fashion,
    "california": _california,
    "adult": _adult,
    "vowels": _vowels,
}
CHANGES: dict[str, Callable[[Array, np.random.Generator], Array]] = {
    "noisy": lambda x, random: x + random.normal(0, 0.5 * x.std(), x.shape).astype(np.float32),
    "inverted": lambda x, _: x.max() - x,
    "dim": lambda x, _: 0.3 * x,
    "moved": lambda x, _: np.roll(x, 2, axis=1),
    "shifted": lambda x, _: x + 1.5 * x.std(0),
}
"""What may have happened to data between the laboratory and the field."""
