"""Series for plots: down-sampled by a fixed rule that keeps extremes, so that the same query gives the same points."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from service.metrics.service import LoggedRow


def downsample(rows: Sequence[LoggedRow], max_points: int) -> list[LoggedRow]:
    """First, last, every non-finite point, and the minimum and maximum of equal buckets between them."""
    if len(rows) <= max_points:
        return list(rows)
    buckets = max(1, (max_points - 2) // 2)
    inner = range(1, len(rows) - 1)
    kept = {0, len(rows) - 1}
    for bucket in range(buckets):
        indices = inner[bucket * len(inner) // buckets : (bucket + 1) * len(inner) // buckets]
        finite = [index for index in indices if isfinite(rows[index].row.value)]
        kept.update(index for index in indices if not isfinite(rows[index].row.value))
        if finite:
            kept.add(min(finite, key=lambda index: rows[index].row.value))
            kept.add(max(finite, key=lambda index: rows[index].row.value))
    return [rows[index] for index in sorted(kept)]
