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
    kept = predefined if spec.use_predefined else None
    if spec.resamples:
        test = _held_out(spec, n, strata, kept, random)
        rest = np.setdiff1d(np.arange(n), test)
        train, validation = _resampled(spec, len(rest), None if strata is None else strata[rest])
        parts = [rest[train], rest[validation], test]
    elif kept is not None:
        parts = [np.flatnonzero(np.asarray(kept) == code).astype(np.int64) for code in (0, 1, 2)]
        if not len(parts[1]) and shares[1] > 0:
            part_labels = None if strata is None else strata[parts[0]]
            chosen, held = cut(len(parts[0]), shares[:2], part_labels, random)
            parts[0], parts[1] = parts[0][chosen], parts[0][held]
    else:
        parts = cut(n, shares, strata, random)
    if spec.subsample is not None and len(parts[0]):
        share = np.array([spec.subsample, 1 - spec.subsample])
        part_labels = None if strata is None else strata[parts[0]]
        few = cut(len(parts[0]), share, part_labels, random)[0] if spec.subsample < 1 else np.arange(len(parts[0]))
        parts[0] = parts[0][few if len(few) else slice(0, 1)]
    return Parts(*(np.sort(part) for part in parts))


def _held_out(
    spec: SplitSpec,
    n: int,
    strata: NDArray[Any] | None,
    predefined: NDArray[Any] | None,
    random: np.random.Generator,
) -> Index:
    """Return the test part that all draws share: the shipped one, else one drawn by `random`.

    It equals the test part of a plain split with the same seed and test share and without a validation part.
    """
    shipped = np.flatnonzero(np.asarray(predefined) == 2) if predefined is not None else np.empty(0, np.int64)
    if len(shipped):
        return shipped.astype(np.int64)
    return cut(n, np.array([spec.train + spec.validation, spec.test]), strata, random)[1]


def _resampled(spec: SplitSpec, n: int, strata: NDArray[Any] | None) -> tuple[Index, Index]:
    """Return (training, validation) indices into the n samples that are not test."""
    seed = spec.seed if spec.resample_seed is None else spec.resample_seed
    if spec.folds is not None:
        fold = fold_of_each(n, strata, spec.folds, seed)
        return np.flatnonzero(fold != spec.fold), np.flatnonzero(fold == spec.fold)
    held = largest_remainder(n, np.array([spec.train, spec.validation]))[1]
    return shuffle_split(n, strata, int(held), seed)


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
    """Return the fold (0 to folds - 1) of each of n samples, stratified if labels are given.

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


def shuffle_split(n: int, labels: NDArray[Any] | None, held: int, seed: int) -> tuple[Index, Index]:
    """Return (training, validation) indices of one random draw of n samples, `held` of which validate.

    The draw equals scikit-learn's StratifiedShuffleSplit(1, test_size=held, train_size=n - held, random_state=seed),
    without labels ShuffleSplit's. Classes of one sample, which scikit-learn refuses, go to one of the two parts.
    """
    random = np.random.RandomState(seed)
    if labels is None:
        order = random.permutation(n)
        return order[held:], order[:held]
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    trains = _most_likely_counts(counts, n - held, random)
    # what is left is all drawn; this second draw takes the same random numbers as scikit-learn's
    _most_likely_counts(counts - trains, held, random)
    train, validation = [], []
    for code, take in enumerate(trains):
        members = np.flatnonzero(codes == code)[random.permutation(counts[code])]
        train.append(members[:take])
        validation.append(members[take:])
    return np.concatenate(train), np.concatenate(validation)


def _most_likely_counts(counts: NDArray[np.int64], draws: int, random: np.random.RandomState) -> NDArray[np.int64]:
    """Return how many of each class `draws` samples most likely have; ties among remainders are broken at random."""
    if not counts.sum():
        return np.zeros_like(counts)
    exact = counts / counts.sum() * draws
    taken = np.floor(exact)
    missing = int(draws - taken.sum())
    remainders = exact - taken
    for value in np.unique(remainders)[::-1]:
        if missing <= 0:
            break
        tied = np.flatnonzero(remainders == value)
        chosen = random.choice(tied, size=min(len(tied), missing), replace=False)
        taken[chosen] += 1
        missing -= len(chosen)
    whole: NDArray[np.int64] = taken.astype(np.int64)
    return whole
