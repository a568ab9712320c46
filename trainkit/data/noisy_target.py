"""Columns that look like the target with noise: they tell much of it, and share nothing else with the other columns.

What is measured before an outcome is mostly related to what else is measured, also among samples of one class. A copy of
the outcome with errors of its own is not: given the target it is independent of all other columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEAST_EXPLAINED = 0.6
"""Share of a column's variance that the target explains, from which on it may be the target with noise."""
BEYOND_CHANCE = 1.645
"""Standard deviations above what chance explains from which on a column shares something with the others."""
LEAST_RELATED = 0.5
"""Share of the other columns that must share something among themselves: else a column alone is no exception."""
FEWEST_SAMPLES, FEWEST_OTHERS, MOST_COLUMNS, MOST_ROWS = 100, 3, 256, 2000
LEAST_KNOWN = 0.9
"""Share of a column's values that are known."""
MOST_COMPARED, FEW, ONE_IN = 8, 2, 10
"""Others that are looked at for a relation; two columns, or one in ten, may look like the target."""
PLAINLY = 5.0
"""Standard errors of a correlation with one other column from which on no more is computed."""
GROUPS, SAMPLES_OF_A_GROUP = 20, 20
"""Of numbers to predict: the column is fitted by a straight line within each of so many groups of the target."""
CLIPPED = 3.0
"""Deviations at which a column is cut off before it is squared."""


def noisy_targets(
    columns: Floats, target: NDArray[np.int64] | Floats, beside: Floats | None = None
) -> list[tuple[int, float]]:
    """Return (index, share of its variance that the target explains) of each of the columns that looks like the target.

    columns: (n, d), target: (n,) class numbers or numbers. beside: (n, e), columns that others may be related to and that
    are no candidates. r is what the classes' means, or lines within groups of the target, leave of a column. It shares
    nothing with the others if their r and r^2 explain no more of its r than chance: R^2 of m regressors and e degrees of
    freedom left is then Beta(m / 2, e / 2). Such a column is reported where it is an exception: two at most, or one in
    ten, and half of the others share something.
    """
    rows = np.random.default_rng(0).permutation(len(target))[:MOST_ROWS]
    y, many = target[rows], columns.shape[1]
    x = columns[rows] if beside is None else np.concatenate([columns[rows], beside[rows]], axis=1)
    known = np.isfinite(x)
    x = np.where(known, x, 0.0)
    scale = np.abs(x).max(0, initial=0.0)
    x = x / np.where(scale > 0, scale, 1.0)
    mean = x.sum(0) / np.maximum(known.sum(0), 1)
    x = np.where(known, x - mean, 0.0)
    varied = np.flatnonzero((np.abs(x).max(0, initial=0.0) > 0) & (known.mean(0) >= LEAST_KNOWN))
    if len(y) < FEWEST_SAMPLES or not FEWEST_OTHERS < len(varied) <= MOST_COLUMNS or not np.isfinite(y).all():
        return []
    x = x[:, varied]
    explains = _basis(y)
    left, free = _without(x, explains), len(y) - explains.shape[1]
    share = 1 - (left**2).sum(0) / free * (len(y) - 1) / (x**2).sum(0)
    order = [place for place in np.argsort(-share, kind="stable").tolist() if varied[place] < many]
    likely = [place for place in order if share[place] >= LEAST_EXPLAINED]
    most, alone = max(FEW, len(varied) // ONE_IN), []
    for place in likely:
        if not _is_related(left, place, explains, free):
            alone.append(place)
        if len(alone) > most:
            return []  # no exception: what these columns are like is how all are
    others = [place for place in range(len(varied)) if place not in alone]
    if not alone or len(others) < FEWEST_OTHERS:
        return []
    compared = others[:: -(-len(others) // MOST_COMPARED)]
    # beside what looks like the target all others would be related to it
    among = np.delete(left, alone, axis=1)
    related = [_is_related(among, others.index(place), explains, free) for place in compared]
    if np.mean(related) < LEAST_RELATED:
        return []
    return [(int(varied[place]), float(share[place])) for place in alone]


def _basis(y: NDArray[np.int64] | Floats) -> Floats:
    """(n, k) orthonormal columns that span what a column may be given the target."""
    if y.dtype.kind == "i":
        members = (y[:, None] == np.unique(y)[None]).astype(np.float64)
    else:
        y = y / (float(np.abs(y).max(initial=0.0)) or 1.0)  # sums of the largest floats overflow
        ranks = np.argsort(np.argsort(y, kind="stable"), kind="stable")
        groups = ranks * min(GROUPS, max(2, len(y) // SAMPLES_OF_A_GROUP)) // len(y)
        members = (groups[:, None] == np.unique(groups)[None]).astype(np.float64)
        centred = y - members @ ((members.T @ y) / members.sum(0))
        size = float(np.abs(centred).max())
        members = np.concatenate([members, members * (centred / (size or 1.0))[:, None]], axis=1)
    return _directions(members)


def _without(x: Floats, basis: Floats) -> Floats:
    return x - basis @ (basis.T @ x)


def _directions(x: Floats) -> Floats:
    """Orthonormal directions of the columns, the widest first."""
    u, size, _ = np.linalg.svd(x, full_matrices=False)
    return u[:, size > 1e-6 * size[0]] if len(size) and size[0] > 0 else u[:, :0]


def _is_related(left: Floats, place: int, explains: Floats, free: int) -> bool:
    """Whether the other columns explain what the target leaves of a column."""
    rest = left[:, place]
    deviations = left.std(0)
    if deviations[place] < 1e-9:
        return False  # the target alone determines it
    others = np.delete(left, place, axis=1)[:, np.delete(deviations, place) > 1e-9]
    others = others / others.std(0)
    if float(np.abs(others.T @ rest).max(initial=0.0)) > PLAINLY * deviations[place] * np.sqrt(len(rest)):
        return True
    squares = _without(np.clip(others, -CLIPPED, CLIPPED) ** 2, explains)
    directions = _directions(np.concatenate([others, squares], axis=1))[:, : free // 4]
    m, e = directions.shape[1], free - directions.shape[1]
    explained = float(((directions.T @ rest) ** 2).sum() / (rest**2).sum())
    chance, deviation = m / (m + e), np.sqrt(2 * m * e / ((m + e) ** 2 * (m + e + 2)))
    return bool(explained > chance + BEYOND_CHANCE * deviation)
