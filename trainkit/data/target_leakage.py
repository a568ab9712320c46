"""Features that give the target away: one of them alone tells it, as what is written down after the fact does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import ArrayInputs, Dataset, TableInputs
from trainkit.data.drift import SHOWN, some_of
from trainkit.data.errors import DataError
from trainkit.data.findings import Finding, finding

TELLS = 0.995
"""Share of the samples beyond the largest class that one feature has to tell."""
MONOTONE = 0.999
"""|Spearman's rank correlation| of a feature with a number to predict."""
FEWEST, FEWEST_OF_A_CLASS = 50, 5
"""Samples in which that is no chance."""
MOST_FEATURES, AT_ONCE = 4096, 64


def giveaways(dataset: Dataset) -> list[Finding]:
    """A finding for each column or feature that tells class or number by itself.

    Classes: cut at K - 1 places the feature's range falls into the K classes; or each category is of one class. Numbers:
    in the same order, or the reverse one. Real measurements hardly do that; results, decisions and sums made from the
    target do. Features that tell only together are not seen.
    """
    dataset = _with_target(dataset)
    y, inputs = dataset.targets, dataset.inputs
    if y is None or not isinstance(inputs, TableInputs | ArrayInputs) or dataset.facts.samples < FEWEST:
        return []
    rows = some_of(np.arange(len(y)))
    answers = np.asarray(y)[rows]
    classes = dataset.facts.target_type == "class"
    if answers.ndim > 1 or (classes and not _enough(answers)):
        return []
    found = []
    for what, where, values, categories in _features(dataset, rows):
        share = _of_class(values, answers, categories) if classes else _of_number(values, answers, categories)
        if share is not None and share >= (TELLS if classes else MONOTONE):
            does = f"tells the class ({share:.1%})" if classes else f"orders the target (rank correlation {share:.4f})"
            message = f"{what} alone {does}: is it known before the answer is?"
            found.append(finding("warning", "target_leak", message, where))
    return found[:SHOWN]


def _with_target(dataset: Dataset) -> Dataset:
    """A table with the column that it says is its target, if that can be one."""
    if dataset.targets is not None or dataset.facts.target is None:
        return dataset
    try:
        return dataset.with_target(dataset.facts.target)
    except DataError:
        return dataset


def _features(dataset: Dataset, rows: NDArray[np.int64]) -> Iterator[tuple[str, str, NDArray[np.float64], bool]]:
    """(words, name, values, whether they are codes of categories) of each input; of very many only some, evenly spread."""
    inputs = dataset.inputs
    if isinstance(inputs, TableInputs):
        for name, column in inputs.columns.items():
            if name != dataset.facts.target:
                values = np.asarray(column.values[rows], np.float64)
                yield f'column "{name}"', name, values, column.categories is not None
    elif isinstance(inputs, ArrayInputs):
        width = int(np.prod(inputs.values.shape[1:]))
        flat = inputs.values.reshape(len(inputs.values), -1)
        chosen = np.arange(0, width, max(1, -(-width // MOST_FEATURES)))
        for start in range(0, len(chosen), AT_ONCE):  # a row's page is read once for all of these
            some = chosen[start : start + AT_ONCE]
            block = np.asarray(flat[np.ix_(rows, some)], np.float64, order="F")
            for place, index in enumerate(some.tolist()):
                yield f"feature {index}", f"feature {index}", block[:, place], False


def _enough(answers: NDArray[np.int64]) -> bool:
    counts = np.bincount(answers)
    return int((counts > 0).sum()) > 1 and int(counts[counts > 0].min()) >= FEWEST_OF_A_CLASS


def _of_class(values: NDArray[np.float64], answers: NDArray[np.int64], categories: bool) -> float | None:
    """Of the samples beyond the largest class the share that the feature tells: 1 - errors / (n - n of the largest).

    Each value stands for its commonest class. Of numbers each change of class beyond the K - 1 that are needed is half
    an error more: a sample in a foreign interval makes two of them.
    """
    counts = np.bincount(answers)
    distinct, group = np.unique(values, return_inverse=True)
    if categories and len(distinct) > len(values) // 10:
        return None  # names: each has its own class because each is alone
    # values by classes is a table of mostly nothing: its cells that are not 0, each value's commonest class first
    cells, sizes = np.unique(group * len(counts) + answers, return_counts=True)
    order = np.lexsort((-sizes, cells // len(counts)))
    first = order[np.unique(cells[order] // len(counts), return_index=True)[1]]
    errors = float(len(answers) - sizes[first].sum())
    if not categories:
        changes = int((np.diff(cells[first] % len(counts)) != 0).sum())
        errors += max(0, changes - (int((counts > 0).sum()) - 1)) / 2
    return 1 - errors / float(len(answers) - counts.max())


def _of_number(values: NDArray[np.float64], answers: NDArray[np.float64], categories: bool) -> float | None:
    """|Spearman's rank correlation|, ties by their mean rank."""
    if categories or not (np.isfinite(values).all() and np.isfinite(answers).all()):
        return None
    a, b = _ranks(values), _ranks(answers)
    if a.std() == 0 or b.std() == 0:
        return None
    return float(abs(np.corrcoef(a, b)[0, 1]))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[group])
