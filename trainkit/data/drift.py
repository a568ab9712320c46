"""Do the shipped parts look alike? Numbers by the Kolmogorov-Smirnov statistic, categories by the stability index."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import PARTS, ArrayInputs, Column, Dataset, Inputs, SequenceInputs, TableInputs
from trainkit.data.findings import Finding, finding

KS_FROM = 0.1
"""A smaller difference is of no consequence, however sure."""
KS_SURE = 1.95
"""Critical factor at a level of 0.001: D > 1.95 sqrt((n + m) / (n m)). Source: Smirnov (1948), Ann. Math. Stat. 19, 279."""
PSI_FROM = 0.25
"""Above 0.25 a population has shifted, by the usual rule of thumb."""
FEWEST = 30
"""Parts of fewer samples tell nothing."""
MOST_ROWS, MOST_FEATURES, SHOWN = 20_000, 512, 20
RANDOM_SEED = 0


def drift(dataset: Dataset, brightness: NDArray[np.float32] | None = None) -> list[Finding]:
    """Findings for each held-out part that differs from the training part. `brightness` (n, C) stands for pictures."""
    if dataset.split is None:
        return []
    split = np.asarray(dataset.split)
    found: list[Finding] = []
    train = np.flatnonzero(split == 0)
    for code in (1, 2):
        held = np.flatnonzero(split == code)
        if min(len(train), len(held)) < FEWEST:
            continue
        own = _labels(dataset, train, held)
        for name, column in _columns(dataset.inputs, brightness, some_of(train), some_of(held)).items():
            statistic = column[0]
            if statistic is not None:
                own.append((statistic, name, column[1]))
        own.sort(key=lambda entry: -entry[0])
        for statistic, name, measure in own[:SHOWN]:
            message = f"{name} is distributed otherwise in {PARTS[code]} than in train ({measure} {statistic:.2f})"
            found.append(finding("warning", "drift", message, name))
    return found


def ks(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Largest distance between the two empirical distribution functions; NaN are left out."""
    a, b = np.sort(a[~np.isnan(a)]), np.sort(b[~np.isnan(b)])
    if not len(a) or not len(b):
        return 0.0
    places = np.concatenate([a, b])
    return float(
        np.abs(np.searchsorted(a, places, "right") / len(a) - np.searchsorted(b, places, "right") / len(b)).max()
    )


def psi(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Population stability index of two counts of the same categories: sum((p - q) ln(p / q)); gaps count as one half."""
    p, q = (np.maximum(counts, 0.5) / max(1, counts.sum()) for counts in (a, b))
    return float(((p - q) * np.log(p / q)).sum())


def some_of(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most `MOST_ROWS` of them, drawn with a fixed seed, in their order."""
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
    """Statistic (None when it is small or unsure) and measure of each column, feature or channel."""
    if isinstance(inputs, TableInputs):
        return {f'column "{name}"': _column(column, train, held) for name, column in inputs.columns.items()}
    if isinstance(inputs, SequenceInputs):
        firsts, lengths = np.asarray(inputs.offsets[:-1]), np.diff(inputs.offsets)
        # one step of each sequence, from its middle: steps of one sequence are no independent samples
        middle = np.asarray(inputs.values[firsts + lengths // 2])
        made = {f"feature {i}": (_ks(middle[train, i], middle[held, i]), "KS") for i in range(middle.shape[1])}
        return {"the length": (_ks(lengths[train], lengths[held]), "KS"), **made}
    if brightness is not None:
        return {
            f"the mean of channel {c}": (_ks(brightness[train, c], brightness[held, c]), "KS")
            for c in range(brightness.shape[1])
        }
    if not isinstance(inputs, ArrayInputs):
        return {}
    width = int(np.prod(inputs.values.shape[1:]))
    # of very many features only some, evenly spread
    features = range(0, width, max(1, -(-width // MOST_FEATURES)))
    a, b = (np.asarray(inputs.values[rows]).reshape(len(rows), -1) for rows in (train, held))
    return {f"feature {i}": (_ks(a[:, i], b[:, i]), "KS") for i in features}


def _column(column: Column, train: NDArray[np.int64], held: NDArray[np.int64]) -> tuple[float | None, str]:
    values = np.asarray(column.values)
    if column.categories is None:
        return _ks(values[train], values[held]), "KS"
    if len(column.categories) > len(held) // 10:
        return None, "PSI"  # names and texts: most would be missing from the smaller part by chance
    counts = [np.bincount(values[rows] + 1, minlength=len(column.categories) + 1) for rows in (train, held)]
    return _psi(*counts), "PSI"


def _ks(a: NDArray[np.generic], b: NDArray[np.generic]) -> float | None:
    statistic = ks(np.asarray(a, np.float64), np.asarray(b, np.float64))
    sure = KS_SURE * np.sqrt((len(a) + len(b)) / (len(a) * len(b)))
    return statistic if statistic > max(KS_FROM, sure) else None


def _psi(a: NDArray[np.int64], b: NDArray[np.int64]) -> float | None:
    statistic = psi(a, b)
    # by chance alone its mean is about (K - 1)(1/n + 1/m)
    chance = (len(a) - 1) * (1 / max(1, a.sum()) + 1 / max(1, b.sum()))
    return statistic if statistic > max(PSI_FROM, 3 * chance) else None
