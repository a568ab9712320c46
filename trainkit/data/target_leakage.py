"""Target leakage: features that predict the target alone, such as values recorded after the outcome."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import ArrayInputs, Dataset, Inputs, TableInputs, make_dataset, table_of
from trainkit.data.drift import MAX_LISTED, subsample
from trainkit.data.errors import DataError
from trainkit.data.findings import Finding, finding
from trainkit.data.noisy_target import MOST_COLUMNS, MOST_ROWS, noisy_targets

MIN_CLASS_SHARE = 0.995
"""Share of the samples outside the largest class that a leaking feature predicts."""
MIN_RANK_CORRELATION = 0.999
"""|Spearman's rank correlation| of a leaking feature with a regression target."""
MIN_SAMPLES, MIN_SAMPLES_PER_CLASS = 50, 5
"""Least number of samples, so that it is not chance."""
MOST_FEATURES, BLOCK_FEATURES = 4096, 64
MOST_CATEGORIES = 10
"""Of a column of categories, that a column of numbers may be related to."""


def find_target_leaks(dataset: Dataset) -> list[Finding]:
    """Return a finding for each column or feature that predicts the target alone, or is the target with noise.

    Classes: K - 1 thresholds of the feature separate the K classes, or each category has one class. Numbers: the feature
    orders the target, or its reverse. Combinations of features are not checked. With noise: `noisy_targets`.
    """
    dataset = _with_target(dataset)
    y, inputs = dataset.targets, table_of(dataset.inputs) or dataset.inputs
    if y is None or not isinstance(inputs, TableInputs | ArrayInputs) or dataset.facts.samples < MIN_SAMPLES:
        return []
    rows = subsample(np.arange(len(y)))
    target = np.asarray(y)[rows]
    classes = dataset.facts.target_type == "class"
    if target.ndim > 1 or (classes and not _has_enough_samples(target)):
        return []
    found = []
    for what, where, values, categories in _features(inputs, dataset.facts.target, rows):
        share = _class_share(values, target, categories) if classes else _rank_correlation(values, target, categories)
        if share is not None and share >= (MIN_CLASS_SHARE if classes else MIN_RANK_CORRELATION):
            does = (
                f"predicts the class ({share:.1%})" if classes else f"orders the target (rank correlation {share:.4f})"
            )
            message = f"{what} alone {does}: check whether it is known before the target"
            found.append(finding("warning", "target_leak", message, where))
    alone = {one["where"] for one in found}
    found += [one for one in _noisy(inputs, dataset.facts.target, rows, target) if one["where"] not in alone]
    return found[:MAX_LISTED]


def _noisy(
    inputs: Inputs, target: str | None, given: NDArray[np.int64], y: NDArray[np.int64] | NDArray[np.float64]
) -> Iterator[Finding]:
    """Yield a finding for each column of numbers that looks like the target with noise."""
    count = int(np.prod(inputs.values.shape[1:])) if isinstance(inputs, ArrayInputs) else 0
    count = len(inputs.columns) if isinstance(inputs, TableInputs) else count
    if count > MOST_COLUMNS + 1:
        return
    rows = np.sort(np.random.default_rng(0).permutation(len(given))[:MOST_ROWS])
    found = list(_features(inputs, target, given[rows]))
    numbers = [one for one in found if not one[3]]
    if not numbers:
        return
    categories = [_members(codes) for _, _, codes, are_categories in found if are_categories]
    beside = np.concatenate(categories, axis=1) if categories else None
    for place, share in noisy_targets(np.stack([one[2] for one in numbers], axis=1), y[rows], beside):
        what, where = numbers[place][:2]
        message = (
            f"{what} shares {share:.0%} of its variance with the target and the rest with no other column, as the target "
            "with noise would: check whether it is known before the target"
        )
        yield finding("warning", "noisy_target_leak", message, where)


def _members(codes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, k) 1 where a sample is of one of the commonest categories, at most `MOST_CATEGORIES`."""
    values, counts = np.unique(codes, return_counts=True)
    commonest = values[np.argsort(-counts, kind="stable")[:MOST_CATEGORIES]]
    members: NDArray[np.float64] = np.equal(codes[:, None], commonest[None]).astype(np.float64)
    return members


def _with_target(dataset: Dataset) -> Dataset:
    """Return a table with its target column as targets, if that is possible."""
    if dataset.targets is not None or dataset.facts.target is None:
        return dataset
    try:
        return _labelled(dataset, dataset.facts.target).with_target(dataset.facts.target)
    except DataError:
        return dataset


def _labelled(dataset: Dataset, target: str) -> Dataset:
    """Return the rows of a table that have a target."""
    facts, inputs = dataset.facts.column(target), dataset.inputs
    if facts is None or not facts.missing or facts.missing == dataset.facts.samples:
        return dataset
    assert isinstance(inputs, TableInputs)
    values = np.asarray(inputs.columns[target].values)
    rows = np.flatnonzero(values >= 0 if inputs.columns[target].categories is not None else ~np.isnan(values))
    columns = {
        # texts name the different values of a whole column, of which some may now be gone
        name: replace(column, values=np.asarray(column.values)[rows], texts=column.texts if name == target else None)
        for name, column in inputs.columns.items()
    }
    return make_dataset(dataset.facts.kind, TableInputs(columns), None, None, None, target=target)


def _features(
    inputs: Inputs, target: str | None, rows: NDArray[np.int64]
) -> Iterator[tuple[str, str, NDArray[np.float64], bool]]:
    """Yield (label, name, values, whether they are category codes) of each feature; of many features evenly spread ones."""
    if isinstance(inputs, TableInputs):
        for name, column in inputs.columns.items():
            if name != target:
                values = np.asarray(column.values[rows], np.float64)
                yield f'column "{name}"', name, values, column.categories is not None
    elif isinstance(inputs, ArrayInputs):
        width = int(np.prod(inputs.values.shape[1:]))
        flat = inputs.values.reshape(len(inputs.values), -1)
        chosen = np.arange(0, width, max(1, -(-width // MOST_FEATURES)))
        for start in range(0, len(chosen), BLOCK_FEATURES):  # each page of the array is read once for the block
            some = chosen[start : start + BLOCK_FEATURES]
            block = np.asarray(flat[np.ix_(rows, some)], np.float64, order="F")
            for place, index in enumerate(some.tolist()):
                yield f"feature {index}", f"feature {index}", block[:, place], False


def _has_enough_samples(target: NDArray[np.int64]) -> bool:
    counts = np.bincount(target)
    return int((counts > 0).sum()) > 1 and int(counts[counts > 0].min()) >= MIN_SAMPLES_PER_CLASS


def _class_share(values: NDArray[np.float64], target: NDArray[np.int64], categories: bool) -> float | None:
    """Return the share of samples outside the largest class that the feature predicts: 1 - errors / (n - n_largest).

    Each value predicts its most common class. For numbers each change of class beyond the needed K - 1 adds half an
    error, because a sample in a wrong interval causes two changes.
    """
    counts = np.bincount(target)
    distinct, group = np.unique(values, return_inverse=True)
    if categories and len(distinct) > len(values) // 10:
        return None  # names: almost every value occurs once and so has one class
    # non-zero cells of the sparse table of values by classes; the most common class of each value first
    cells, sizes = np.unique(group * len(counts) + target, return_counts=True)
    order = np.lexsort((-sizes, cells // len(counts)))
    first = order[np.unique(cells[order] // len(counts), return_index=True)[1]]
    errors = float(len(target) - sizes[first].sum())
    if not categories:
        changes = int((np.diff(cells[first] % len(counts)) != 0).sum())
        errors += max(0, changes - (int((counts > 0).sum()) - 1)) / 2
    return 1 - errors / float(len(target) - counts.max())


def _rank_correlation(values: NDArray[np.float64], target: NDArray[np.float64], categories: bool) -> float | None:
    """Return |Spearman's rank correlation|, ties by mean ranks."""
    if categories or not (np.isfinite(values).all() and np.isfinite(target).all()):
        return None
    a, b = _ranks(values), _ranks(target)
    if a.std() == 0 or b.std() == 0:
        return None
    return float(abs(np.corrcoef(a, b)[0, 1]))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[group])
