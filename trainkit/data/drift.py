"""Drift between predefined parts: Kolmogorov-Smirnov statistic of numbers, population stability index of categories."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import PARTS, ArrayInputs, Column, Dataset, Inputs, SequenceInputs, table_of
from trainkit.data.findings import Finding, finding

MIN_KS = 0.1
"""Least KS statistic that is reported."""
KS_CRITICAL = 1.95
"""Critical factor at a level of 0.001: D > 1.95 sqrt((n + m) / (n m)). Source: Smirnov (1948), Ann. Math. Stat. 19, 279."""
MIN_PSI = 0.25
"""Least stability index that is reported, the usual rule of thumb."""
MIN_SAMPLES = 30
"""Least number of samples in a part."""
MOST_ROWS, MOST_FEATURES, MAX_LISTED = 20_000, 512, 20
RANDOM_SEED = 0


def find_drift(dataset: Dataset, brightness: NDArray[np.float32] | None = None) -> list[Finding]:
    """Return findings of each held-out part that differs from the training part. `brightness` (n, C): of images."""
    if dataset.split is None:
        return []
    split = np.asarray(dataset.split)
    found: list[Finding] = []
    train = np.flatnonzero(split == 0)
    for code in (1, 2):
        held = np.flatnonzero(split == code)
        if min(len(train), len(held)) < MIN_SAMPLES:
            continue
        drifted = _labels(dataset, train, held)
        for name, column in _columns(dataset.inputs, brightness, subsample(train), subsample(held)).items():
            statistic = column[0]
            if statistic is not None:
                drifted.append((statistic, name, column[1]))
        drifted.sort(key=lambda entry: -entry[0])
        for statistic, name, measure in drifted[:MAX_LISTED]:
            message = f"{name} is distributed differently in {PARTS[code]} than in train ({measure} {statistic:.2f})"
            found.append(finding("warning", "drift", message, name))
    return found


def ks(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Return the largest distance between the two empirical distribution functions; NaN are left out."""
    a, b = np.sort(a[~np.isnan(a)]), np.sort(b[~np.isnan(b)])
    if not len(a) or not len(b):
        return 0.0
    places = np.concatenate([a, b])
    return float(
        np.abs(np.searchsorted(a, places, "right") / len(a) - np.searchsorted(b, places, "right") / len(b)).max()
    )


def psi(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Return the population stability index of two counts of the same categories: sum((p - q) ln(p / q)).

    A count of 0 is replaced by 0.5.
    """
    p, q = (np.maximum(counts, 0.5) / max(1, counts.sum()) for counts in (a, b))
    return float(((p - q) * np.log(p / q)).sum())


def subsample(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return at most `MOST_ROWS` of the rows, drawn with a fixed seed, in order."""
    if len(rows) <= MOST_ROWS:
        return rows
    return np.sort(np.random.default_rng(RANDOM_SEED).choice(rows, MOST_ROWS, replace=False))


def _labels(dataset: Dataset, train: NDArray[np.int64], held: NDArray[np.int64]) -> list[tuple[float, str, str]]:
    if dataset.targets is None:
        return []
    y = np.asarray(dataset.targets)
    if dataset.facts.target_type == "class":
        counts = [np.bincount(y[rows], minlength=len(dataset.facts.classes or ())) for rows in (train, held)]
        statistic = _psi(*counts)
        return [] if statistic is None else [(statistic, "the share of the classes", "PSI")]
    statistic = _ks(y[train].reshape(len(train), -1)[:, 0], y[held].reshape(len(held), -1)[:, 0])
    return [] if statistic is None else [(statistic, "the target", "KS")]


def _columns(
    inputs: Inputs, brightness: NDArray[np.float32] | None, train: NDArray[np.int64], held: NDArray[np.int64]
) -> Mapping[str, tuple[float | None, str]]:
    """Return the statistic (None if small or not significant) and its name for each column, feature or channel."""
    table = table_of(inputs)
    by_column = {
        f'column "{name}"': _column(one, train, held) for name, one in (table.columns if table else {}).items()
    }
    if isinstance(inputs, SequenceInputs):
        firsts, lengths = np.asarray(inputs.offsets[:-1]), np.diff(inputs.offsets)
        # the middle step of each sequence: steps of one sequence are not independent
        middle = np.asarray(inputs.values[firsts + lengths // 2])
        by_feature = {f"feature {i}": (_ks(middle[train, i], middle[held, i]), "KS") for i in range(middle.shape[1])}
        return {"the length": (_ks(lengths[train], lengths[held]), "KS"), **by_feature}
    if brightness is not None:
        by_channel = {
            f"the mean of channel {c}": (_ks(brightness[train, c], brightness[held, c]), "KS")
            for c in range(brightness.shape[1])
        }
        return {**by_channel, **by_column}
    if not isinstance(inputs, ArrayInputs):
        return by_column
    width = int(np.prod(inputs.values.shape[1:]))
    # evenly spread features, if there are many
    features = range(0, width, max(1, -(-width // MOST_FEATURES)))
    a, b = (np.asarray(inputs.values[rows]).reshape(len(rows), -1) for rows in (train, held))
    return {f"feature {i}": (_ks(a[:, i], b[:, i]), "KS") for i in features}


def _column(column: Column, train: NDArray[np.int64], held: NDArray[np.int64]) -> tuple[float | None, str]:
    values = np.asarray(column.values)
    if column.categories is None:
        return _ks(values[train], values[held]), "KS"
    if len(column.categories) > len(held) // 10:
        return None, "PSI"  # names and texts: most are missing in the smaller part by chance
    counts = [np.bincount(values[rows] + 1, minlength=len(column.categories) + 1) for rows in (train, held)]
    return _psi(*counts), "PSI"


def _ks(a: NDArray[np.generic], b: NDArray[np.generic]) -> float | None:
    statistic = ks(np.asarray(a, np.float64), np.asarray(b, np.float64))
    sure = KS_CRITICAL * np.sqrt((len(a) + len(b)) / (len(a) * len(b)))
    return statistic if statistic > max(MIN_KS, sure) else None


def _psi(a: NDArray[np.int64], b: NDArray[np.int64]) -> float | None:
    statistic = psi(a, b)
    # its mean by chance is about (K - 1)(1/n + 1/m)
    chance = (len(a) - 1) * (1 / max(1, a.sum()) + 1 / max(1, b.sum()))
    return statistic if statistic > max(MIN_PSI, 3 * chance) else None
