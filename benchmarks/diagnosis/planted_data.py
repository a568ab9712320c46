"""The data of a case: samples of the pool with what a recipe plants in them, and samples aside that no run sees.

The samples aside are as the field will be: with true labels, without copies of what was trained on. They judge a run
independently of its validation part, which a fault may have spoilt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.diagnosis.datasets import POOL, samples_of
from trainkit.data import Dataset
from trainkit.data.dataset import Column, SequenceInputs, TableInputs, make_dataset

Array = NDArray[Any]
Recipe = Mapping[str, Any]
SPLIT_SHARES = (0.6, 0.2, 0.2)
"""Shares of the parts that a dataset ships."""


@dataclass(frozen=True, slots=True)
class CaseData:
    """The dataset of a run, and the inputs (as `TrainedModel.predict` takes them) and targets of the samples aside."""

    dataset: Dataset
    aside_inputs: Any
    aside_targets: Array
    train_share_of_class: Array
    """Share of each class in the dataset; empty for regression."""


def case_data(recipe: Recipe) -> CaseData:
    """Return the data of a recipe.

    Always: `dataset` of the pool, `seed`, `n` samples, `form` (arrays, table, image, sequence).
    Properties of the data: columns (number kept), input_noise (deviations of noise in all inputs), scale (all inputs times
    that), spread (columns times 10^u, u uniform in +-spread), outliers {share, size in deviations}, ships_parts.
    Planted: label_noise (share of labels that are wrong), imbalance {classes, ratio, thinned}, mismatch {change, amount,
    parts}, leak (share of the shipped held-out samples that training holds as well), copies (times that each sample
    occurs), revealing (deviation of noise in a column that is the target; None: nothing but noise).

    Each draws from a generator of its own, so that recipes which differ in one thing have all else alike.
    Raises ValueError for other ingredients.
    """
    plan = dict(recipe)
    seed, name = plan.pop("seed"), plan.pop("dataset")
    x, y = samples_of(name)
    order = _random(seed, "order").permutation(len(y))
    aside, rest = order[: POOL[name].aside], order[POOL[name].aside :]
    rest = _chosen(y, rest, plan.pop("n"), plan.pop("imbalance", None), _random(seed, "imbalance"))
    form, ships_parts = plan.pop("form"), plan.pop("ships_parts", False)
    inputs, targets = [_take(x, rows) for rows in (rest, aside)], [y[rows] for rows in (rest, aside)]
    inputs = _properties(inputs, plan, seed)
    if (noise := plan.pop("revealing", "none")) != "none":
        inputs = _revealing(inputs, targets, noise, _random(seed, "revealing"))
    targets[0] = _planted_targets(targets[0], plan, seed)
    codes = _parts(len(rest), _random(seed, "parts"))
    if mismatch := plan.pop("mismatch", None):
        changed = _changed([_stacked(one) for one in inputs], mismatch, _random(seed, "mismatch"))
        field = np.flatnonzero(np.isin(codes, [1, 2] if mismatch["parts"] == "held_out" else [2]))
        inputs = [_replaced(inputs[0], field, changed[0]), _like(inputs[1], changed[1])]
    if leak := plan.pop("leak", 0.0):
        held = np.flatnonzero(codes)
        again = _random(seed, "leak").permutation(held)[: round(leak * len(held))]
        rows = np.concatenate([np.arange(len(rest)), again])
        inputs[0], targets[0] = _take(inputs[0], rows), targets[0][rows]
        codes = np.concatenate([codes, np.zeros(len(again), np.int8)])
    if copies := plan.pop("copies", 1):
        rows = np.tile(np.arange(len(targets[0])), copies)
        inputs[0], targets[0] = _take(inputs[0], rows), targets[0][rows]
    if plan:
        raise ValueError(f"a recipe has no {', '.join(plan)}")
    counts = np.bincount(targets[0]) if targets[0].dtype.kind == "i" else np.empty(0)
    dataset, aside_inputs = FORMS[form](inputs, targets[0], codes if ships_parts else None)
    return CaseData(dataset, aside_inputs, targets[1], counts / max(counts.sum(), 1))


def _random(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, *purpose.encode()])


def _take(x: Any, rows: Array) -> Any:
    return [x[row] for row in rows] if isinstance(x, list) else x[rows]


def _chosen(y: Array, rest: Array, n: int, imbalance: Mapping[str, Any] | None, random: np.random.Generator) -> Array:
    """Return n of the rows `rest`.

    With `imbalance` some classes have `ratio` times fewer samples than the others' median, and n shrinks to what there
    is then. `thinned` false: as many samples in all, with the classes' natural shares.
    """
    rows = rest[:n]
    if imbalance is None:
        return rows
    counts = np.bincount(y[rows])
    usual = float(np.median(counts[counts > 0]))
    rare = random.permutation(len(counts))[: imbalance["classes"]]
    limit = max(2, round(usual / imbalance["ratio"]))
    kept = np.ones(len(rows), bool)
    for label in rare:
        kept[np.flatnonzero(y[rows] == label)[limit:]] = False
    return rows[kept] if imbalance["thinned"] else rows[: int(kept.sum())]


def _properties(inputs: list[Any], plan: dict[str, Any], seed: int) -> list[Any]:
    """Columns, noise and sizes of the inputs, alike for the run and for the samples aside."""
    if (columns := plan.pop("columns", None)) is not None:
        kept = np.sort(_random(seed, "columns").permutation(inputs[0].shape[1])[:columns])
        inputs = [one[:, kept] for one in inputs]
    if noise := plan.pop("input_noise", 0.0):
        random, deviation = _random(seed, "input_noise"), _stacked(inputs[0]).std(0)
        inputs = [
            _like(one, (flat := _stacked(one)) + noise * deviation * random.normal(size=flat.shape)) for one in inputs
        ]
    factor = plan.pop("scale", 1.0)
    if spread := plan.pop("spread", 0.0):
        width = _stacked(inputs[0]).shape[-1]
        factor = factor * 10 ** _random(seed, "spread").uniform(-spread, spread, width)
    return inputs if np.all(factor == 1.0) else [_like(one, _stacked(one) * factor) for one in inputs]


def _stacked(x: Any) -> Array:
    """All values with the last axis kept: rows of a table or image, steps of all sequences."""
    return np.concatenate(x) if isinstance(x, list) else x


def _like(x: Any, values: Array) -> Any:
    """Undo `_stacked`."""
    values = values.astype(np.float32)
    return np.split(values, np.cumsum([len(one) for one in x])[:-1]) if isinstance(x, list) else values


def _revealing(
    inputs: list[Array], targets: list[Array], noise: float | None, random: np.random.Generator
) -> list[Array]:
    """One more column: the target and noise of so many deviations. Aside, and without a leak, it is a stranger's."""

    def column(y: Array, known: bool) -> Array:
        y = y if known else random.permutation(y)
        known_y = (y - targets[0].mean()) / targets[0].std()
        return np.asarray(known_y + (noise or 0.0) * random.normal(size=len(y)))[:, None]

    columns = [column(targets[0], noise is not None), column(targets[1], False)]
    return [np.concatenate([one, more], 1).astype(np.float32) for one, more in zip(inputs, columns, strict=True)]


def _planted_targets(y: Array, plan: dict[str, Any], seed: int) -> Array:
    if share := plan.pop("label_noise", 0.0):
        random, classes = _random(seed, "label_noise"), int(y.max()) + 1
        wrong = random.random(len(y)) < share
        y = np.where(wrong, (y + random.integers(1, classes, len(y))) % classes, y)
    if outliers := plan.pop("outliers", None):
        random = _random(seed, "outliers")
        hit = random.random(len(y)) < outliers["share"]
        y = y + hit * random.choice([-1.0, 1.0], len(y)) * outliers["size"] * y.std()
    return y


def _parts(n: int, random: np.random.Generator) -> Array:
    """Codes of the shipped parts."""
    held = [int(share * n) for share in SPLIT_SHARES[1:]]
    codes = np.concatenate([np.full(held[0], 1), np.full(held[1], 2), np.zeros(n - sum(held))]).astype(np.int8)
    return random.permutation(codes)


CHANGES: dict[str, Callable[[Array, float, np.random.Generator], Array]] = {
    "noise": lambda x, amount, random: x + amount * x.std() * random.normal(size=x.shape),
    "shift": lambda x, amount, _: x + amount * x.reshape(-1, x.shape[-1]).std(0),
    "contrast": lambda x, amount, _: x / (1 + 2 * amount),
    "noisy_columns": lambda x, amount, random: (
        x
        + (random.random(x.shape[-1]) < 0.4)
        * 2
        * amount
        * x.reshape(-1, x.shape[-1]).std(0)
        * random.normal(size=x.shape)
    ),
}
"""What may have happened to data between the laboratory and the field: (inputs, amount in deviations, generator)."""


def _changed(x: list[Array], mismatch: Mapping[str, Any], random: np.random.Generator) -> list[Array]:
    both = CHANGES[mismatch["change"]](np.concatenate(x), mismatch["amount"], random)
    return [both[: len(x[0])], both[len(x[0]) :]]


def _replaced(x: Any, rows: Array, values: Array) -> Any:
    """x with the samples `rows` from `values`, which is stacked."""
    other = _like(x, values)
    if isinstance(x, list):
        chosen = set(rows.tolist())
        return [other[i] if i in chosen else one for i, one in enumerate(x)]
    result = x.copy()
    result[rows] = other[rows]
    return result


def _arrays(inputs: list[Array], y: Array, split: Array | None) -> tuple[Dataset, Any]:
    return Dataset.from_arrays(inputs[0], y, split=split), inputs[1]


def _images(inputs: list[Array], y: Array, split: Array | None) -> tuple[Dataset, Any]:
    return Dataset.from_arrays(inputs[0][:, None], y, split=split, channels="first"), inputs[1][:, None]


def _sequences(inputs: list[Any], y: Array, split: Array | None) -> tuple[Dataset, Any]:
    """Sequences as they are; of images each row is a step."""
    samples = list(inputs[0])
    offsets = np.concatenate([[0], np.cumsum([len(sample) for sample in samples])])
    values = SequenceInputs(np.concatenate(samples).astype(np.float32), offsets)
    names = [str(label) for label in range(int(y.max()) + 1)]
    return make_dataset("sequences", values, y.astype(np.int64), names, split), list(inputs[1])


def _table(inputs: list[Array], y: Array, split: Array | None) -> tuple[Dataset, Any]:
    names = [f"c{i}" for i in range(inputs[0].shape[1])]
    columns = {name: Column(values.astype(np.float64)) for name, values in zip(names, inputs[0].T, strict=True)}
    classes = tuple(str(label) for label in range(int(y.max()) + 1)) if y.dtype.kind == "i" else None
    columns["target"] = Column(y if classes is None else y.astype(np.int32), classes)
    table = make_dataset("table", TableInputs(columns), None, None, split)
    return table.with_target("target"), [dict(zip(names, row, strict=True)) for row in inputs[1].tolist()]


FORMS: dict[str, Callable[[list[Any], Array, Array | None], tuple[Dataset, Any]]] = {
    "arrays": _arrays,
    "image": _images,
    "sequence": _sequences,
    "table": _table,
}
