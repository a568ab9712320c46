"""Splits into parts and folds, and balancing. NumPy's PCG64 is seeded by the spec alone, so splits are reproducible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.errors import data_error
from trainkit.spec.split import Balance, SplitSpec

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Parts:
    """Sorted, disjoint sample indices; together all samples, unless training was sub-sampled or duplicates were dropped."""

    train: Index
    validation: Index
    test: Index


def without_duplicates(parts: Parts, marks: NDArray[np.uint64]) -> Parts:
    """Remove duplicates: from training those of validation and test samples, from validation those of test samples.

    `marks` (n, 2) are the samples' `duplicates.digests`. Raises DataError if no training sample is left.
    """
    _, groups = np.unique(marks, axis=0, return_inverse=True)
    groups = groups.reshape(-1)
    validation = parts.validation[~np.isin(groups[parts.validation], groups[parts.test])]
    held = np.concatenate([groups[parts.validation], groups[parts.test]])
    train = parts.train[~np.isin(groups[parts.train], held)]
    if not len(train):
        message = "every training sample is an exact duplicate of a held-out one"
        raise data_error("no_training_samples", message, "split", 'Split differently, or set `duplicates: "keep"`.')
    return Parts(train, validation, parts.test)


def largest_remainder(total: int, shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return integer sizes that sum to `total`, as near as possible to total * shares (largest remainders)."""
    exact = total * shares / shares.sum()
    sizes: NDArray[np.int64] = np.floor(exact + 1e-9).astype(np.int64)
    rest = total - int(sizes.sum())
    order = np.argsort(-(exact - sizes), kind="stable")
    sizes[order[:rest]] += 1
    return sizes


def split_indices(
    spec: SplitSpec, n: int, labels: NDArray[Any] | None = None, predefined: NDArray[Any] | None = None
) -> Parts:
    """Return the three parts of n samples; `labels` (n,) class indices stratify, `predefined` (n,) codes are kept.

    A dataset that ships train and test but no validation part gives validation / (train + validation) of its
    training part.
    """
    strata = labels if spec.stratify else None
    random = np.random.default_rng(np.random.PCG64(spec.seed))
    shares = np.array(spec.fractions)
    if spec.folds is not None and spec.fold is not None:
        fold = fold_of_each(n, strata, spec.folds, spec.seed)
        rest = np.flatnonzero(fold != spec.fold)
        part_labels = None if strata is None else strata[rest]
        # each fold splits the rest by its own random stream
        inner = np.random.default_rng(np.random.PCG64([spec.seed, spec.fold]))
        kept, held = cut(len(rest), shares[:2], part_labels, inner)
        parts = [rest[kept], rest[held], np.flatnonzero(fold == spec.fold)]
    elif predefined is not None and spec.use_predefined:
        parts = [np.flatnonzero(np.asarray(predefined) == code).astype(np.int64) for code in (0, 1, 2)]
        if not len(parts[1]) and shares[1] > 0:
            part_labels = None if strata is None else strata[parts[0]]
            kept, held = cut(len(parts[0]), shares[:2], part_labels, random)
            parts[0], parts[1] = parts[0][kept], parts[0][held]
    else:
        parts = cut(n, shares, strata, random)
    if spec.subsample is not None and len(parts[0]):
        share = np.array([spec.subsample, 1 - spec.subsample])
        part_labels = None if strata is None else strata[parts[0]]
        kept = cut(len(parts[0]), share, part_labels, random)[0] if spec.subsample < 1 else np.arange(len(parts[0]))
        parts[0] = parts[0][kept if len(kept) else slice(0, 1)]
    return Parts(*(np.sort(part) for part in parts))


def cut(
    n: int, shares: NDArray[np.float64], labels: NDArray[Any] | None, random: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Return shuffled indices of n samples split by `shares`, stratified if labels are given.

    Sizes are exact (largest remainders); in each part each class is within one sample of its share.
    """
    sizes = largest_remainder(n, shares)
    if labels is None:
        order = random.permutation(n)
        return [piece.astype(np.int64) for piece in np.split(order, np.cumsum(sizes)[:-1])]
    classes, codes = np.unique(labels, return_inverse=True)
    counts = np.bincount(codes, minlength=len(classes))
    table = _allocate(counts, sizes)
    pieces: list[list[NDArray[np.int64]]] = [[] for _ in sizes]
    for code in range(len(classes)):
        members = random.permutation(np.flatnonzero(codes == code))
        for part, piece in enumerate(np.split(members, np.cumsum(table[code])[:-1])):
            pieces[part].append(piece)
    return [np.concatenate(piece).astype(np.int64) for piece in pieces]


def _allocate(counts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole table (classes, parts), row sums `counts`, column sums `sizes`, each cell counts x sizes / n rounded up or down.

    Such a controlled rounding always exists (a flow with whole capacities). Largest remainders go first.
    """
    n = max(1, int(counts.sum()))
    table, remainders = np.divmod(counts[:, None] * sizes[None, :], n)
    row_rest, room = counts - table.sum(1), sizes - table.sum(0)
    free = remainders > 0
    up = np.zeros_like(free)
    for flat in np.argsort(-remainders, axis=None, kind="stable").tolist():
        row, column = divmod(flat, len(sizes))
        if free[row, column] and row_rest[row] > 0 and room[column] > 0:
            up[row, column] = True
            row_rest[row] -= 1
            room[column] -= 1
    # the greedy order may leave no room for a row: then earlier choices move along an augmenting path
    for row in np.flatnonzero(row_rest).tolist():
        for _ in range(int(row_rest[row])):
            _place(row, free, up, room, set())
    return table + up


def _place(row: int, free: NDArray[np.bool_], up: NDArray[np.bool_], room: NDArray[np.int64], tried: set[int]) -> bool:
    """Round one more cell of the row up, moving another row's choice to another part where there is no room."""
    for column in np.flatnonzero(free[row] & ~up[row]).tolist():
        if column in tried:
            continue
        tried.add(column)
        if room[column] > 0:
            room[column] -= 1
            up[row, column] = True
            return True
        for other in np.flatnonzero(up[:, column]).tolist():
            if _place(other, free, up, room, tried):
                up[other, column], up[row, column] = False, True
                return True
    return False


def rebalance(indices: Index, labels: NDArray[Any], balance: Balance, seed: int) -> Index:
    """Return training indices drawn so that all classes have the same size; `labels` are those of `indices`.

    `oversample` keeps every sample and repeats the rare ones; `undersample` drops from the common ones;
    the other kinds change nothing.
    """
    if balance not in ("oversample", "undersample"):
        return indices
    random = np.random.default_rng(np.random.PCG64(seed))
    classes, counts = np.unique(labels, return_counts=True)
    drawn = []
    for name, count in zip(classes, counts, strict=True):
        members = indices[labels == name]
        if balance == "undersample":
            drawn.append(random.permutation(members)[: counts.min()])
            continue
        missing = counts.max() - count
        whole, rest = divmod(int(missing), int(count))
        # whole repetitions first, so that all samples are repeated about equally often
        drawn += [members, *[members] * whole, random.permutation(members)[:rest]]
    return np.sort(np.concatenate(drawn))


def class_weights(labels: NDArray[Any], classes: int) -> NDArray[np.float64]:
    """Return the `balanced` weights n / (K * count_k), (K,), as in scikit-learn; a class without samples gets 0."""
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    present = counts > 0
    weights = np.zeros(classes)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights


def fold_of_each(n: int, labels: NDArray[Any] | None, folds: int, seed: int) -> NDArray[np.int64]:
    """Return the test fold (0 to folds - 1) of each of n samples, stratified if labels are given.

    The folds equal those of scikit-learn's StratifiedKFold(folds, shuffle=True, random_state=seed), without labels KFold's:
    the same draws of NumPy's RandomState, whose stream never changes.
    """
    random = np.random.RandomState(seed)
    fold = np.empty(n, np.int64)
    if labels is None:
        order = np.arange(n)
        random.shuffle(order)
        for number, members in enumerate(np.array_split(order, folds)):
            fold[members] = number
        return fold
    _, first, codes = np.unique(labels, return_index=True, return_inverse=True)
    codes = np.argsort(np.argsort(first))[codes]  # classes count in the order in which they appear
    in_order = np.sort(codes)
    shares = np.stack([np.bincount(in_order[number::folds], minlength=len(first)) for number in range(folds)])
    for code in range(len(first)):
        drawn = np.arange(folds).repeat(shares[:, code])
        random.shuffle(drawn)
        fold[codes == code] = drawn
    return fold
