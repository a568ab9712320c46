"""How one dataset differs from another, from what their reports hold: no sample is read again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

QUARTILES = ("min", "q1", "median", "q3", "max")
MIN_KS, MIN_PSI, MIN_SHIFT = 0.1, 0.25, 0.2
"""Least statistics that count as drift, as in `trainkit.data.drift`; of the shift: a small effect by Cohen (1988)."""
KS_CRITICAL, Z_CRITICAL = 1.95, 3.29
"""At a level of 0.001: Smirnov (1948) and the normal distribution, two-sided."""
MAX_SHARE = 0.1
"""Categories beyond this share of the samples are names or texts, of which most are missing in either by chance."""


def drift_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return what changed from one report to the other, columns that drifted first."""
    n, m = int(before.get("samples") or 0), int(after.get("samples") or 0)
    first, second = ({one["name"]: one for one in report.get("columns") or ()} for report in (before, after))
    rows = [_column(name, before, after, first[name], second[name], (n, m)) for name in first if name in second]
    if (classes := _counts(before.get("classes"), after.get("classes"))) is not None:
        rows.append({**_row("class", "classes"), **_psi(*classes)})
    for channel, row in enumerate(_channels(before, after)):
        rows.append({**_row(f"channel {channel}", "channel"), **row})
    return {
        "samples_before": n,
        "samples_after": m,
        "added": [name for name in second if name not in first],
        "removed": [name for name in first if name not in second],
        "columns": sorted(rows, key=lambda row: not row["drifted"]),
    }


def _row(name: str, kind: str) -> dict[str, Any]:
    nothing = dict.fromkeys(
        ("ks_at_least", "psi", "shift", "mean_before", "mean_after", "missing_before", "missing_after")
    )
    return {"name": name, "kind": kind, **nothing, "drifted": False}


def _column(
    name: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    samples: tuple[int, int],
) -> dict[str, Any]:
    row = _row(name, str(second.get("type") or second.get("read_as")))
    n, m = samples
    for when, column, count in (("before", first, n), ("after", second, m)):
        if count and column.get("missing") is not None:
            row[f"missing_{when}"] = column["missing"] / count
    if first.get("type") != second.get("type"):
        return {**row, "drifted": True}
    old, new = ((report.get("column_statistics") or {}).get(name) for report in (before, after))
    if old and new:
        row |= _numbers(old, new, n, m)
    elif (counts := _counts(first.get("categories"), second.get("categories"))) is not None:
        row |= _psi(*counts)
    return row


def _numbers(a: Mapping[str, float], b: Mapping[str, float], n: int, m: int) -> dict[str, Any]:
    spread = math.sqrt((a["std"] ** 2 + b["std"] ** 2) / 2)
    difference = b["mean"] - a["mean"]
    shift = difference / spread if spread else (0.0 if difference == 0 else None)
    error = math.sqrt(a["std"] ** 2 / max(1, n) + b["std"] ** 2 / max(1, m))
    distance = ks_at_least([a[name] for name in QUARTILES], [b[name] for name in QUARTILES])
    # the quartiles of a sample are known to about 0.5 / sqrt(n): the statistic has to be beyond both bounds
    far = distance > max(MIN_KS, KS_CRITICAL * math.sqrt((n + m) / max(1, n * m)))
    moved = shift is None or (abs(shift) > MIN_SHIFT and abs(difference) > Z_CRITICAL * error)
    return {
        "ks_at_least": distance,
        "shift": shift,
        "mean_before": a["mean"],
        "mean_after": b["mean"],
        "drifted": far or moved,
    }


def ks_at_least(a: Sequence[float], b: Sequence[float]) -> float:
    """Return a lower bound of the KS statistic of two samples of which the five quartiles are known, the ends included.

    Between two quartiles a distribution function lies between their shares: where the two ranges are apart at some x,
    so far apart are the functions at least.
    """
    distance = 0.0
    for x in (*a, *b):
        (low_a, high_a), (low_b, high_b) = _share_at(a, x), _share_at(b, x)
        distance = max(distance, low_a - high_b, low_b - high_a)
    return distance


def _share_at(quartiles: Sequence[float], x: float) -> tuple[float, float]:
    """Return the least and the largest share of the sample that is x or less."""
    if x < quartiles[0]:
        return 0.0, 0.0
    if x >= quartiles[-1]:
        return 1.0, 1.0
    low = max(index for index, value in enumerate(quartiles) if value <= x)
    return low / 4, (low + 1) / 4


def _counts(first: Mapping[str, int] | None, second: Mapping[str, int] | None) -> tuple[list[int], list[int]] | None:
    if not first or not second:
        return None
    names = list(dict.fromkeys([*first, *second]))
    a, b = ([int(counts.get(name, 0)) for name in names] for counts in (first, second))
    return None if len(names) > MAX_SHARE * min(sum(a), sum(b)) else (a, b)


def _psi(a: Sequence[int], b: Sequence[int]) -> dict[str, Any]:
    """Population stability index sum((p - q) ln(p / q)), 0.5 in place of a count of 0."""
    p, q = ([max(count, 0.5) / sum(counts) for count in counts] for counts in (a, b))
    value = sum((x - y) * math.log(x / y) for x, y in zip(p, q, strict=True))
    by_chance = (len(a) - 1) * (1 / sum(a) + 1 / sum(b))  # its mean without drift
    return {"psi": value, "drifted": value > max(MIN_PSI, 3 * by_chance)}


def _channels(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Shift of each channel's mean in standard deviations of its pixels; pixels of one image are not independent."""
    means = [report.get("channel_means") or [] for report in (before, after)]
    stds = [report.get("channel_stds") or [] for report in (before, after)]
    if len(means[0]) != len(means[1]) or not all(len(one) == len(means[0]) for one in stds):
        return []
    rows = []
    for a, b, s, t in zip(*means, *stds, strict=True):
        spread = math.sqrt((s**2 + t**2) / 2)
        shift = (b - a) / spread if spread else (0.0 if a == b else None)
        drifted = shift is None or abs(shift) > MIN_SHIFT
        rows.append({"shift": shift, "mean_before": a, "mean_after": b, "drifted": drifted})
    return rows
