"""Series for plots: down-sampled by a fixed rule that keeps extremes, so that the same query gives the same points."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from service.metrics.service import scan

COLUMNS = ("seq", "step", "epoch", "value", "at")


@dataclass(frozen=True, slots=True)
class SeriesQuery:
    """Which part of a log is shown: names (None: all), steps from..to with both ends, points of each series."""

    names: frozenset[str] | None = None
    max_points: int = 1000
    from_step: int | None = None
    to_step: int | None = None


@dataclass(slots=True)
class SeriesBuffer:
    """One series of the rows that count: `seq`, `step`, `epoch`, `value`, `at` (Unix seconds), arrays of one length."""

    parts: dict[str, list[NDArray[Any]]] = field(default_factory=lambda: {name: [] for name in COLUMNS})

    def columns(self) -> dict[str, NDArray[Any]]:
        """The whole columns."""
        return {name: np.concatenate(parts) for name, parts in self.parts.items()}


def read_series(session: Session, job_id: str, query: SeriesQuery) -> dict[str, dict[str, NDArray[Any]]]:
    """Every requested series (`val_accuracy`) in at most `max_points` points."""
    found = collect(session, job_id, query)
    kept = {name: downsample(columns["value"], query.max_points) for name, columns in found.items()}
    return {name: {key: values[kept[name]] for key, values in columns.items()} for name, columns in found.items()}


def collect(session: Session, job_id: str, query: SeriesQuery) -> dict[str, dict[str, NDArray[Any]]]:
    """Every requested series, without the rows that were run again."""
    found: dict[str, SeriesBuffer] = {}
    for piece in scan(session, job_id, 0, query.names):
        places = piece.places[~piece.superseded[piece.places]]
        if query.from_step is not None:
            places = places[piece.columns.step[places] >= query.from_step]
        if query.to_step is not None:
            places = places[piece.columns.step[places] <= query.to_step]
        which = piece.columns.index[places]
        for index, (split, name) in enumerate(piece.columns.series):
            rows = places[which == index]
            if len(rows):
                parts = found.setdefault(f"{split}_{name}", SeriesBuffer()).parts
                parts["seq"].append(piece.seq[rows])
                for column in COLUMNS[1:]:
                    parts[column].append(getattr(piece.columns, column)[rows])
    return {name: series.columns() for name, series in sorted(found.items())}


def downsample(values: NDArray[np.float64], max_points: int) -> NDArray[np.intp]:
    """Indices to keep, at most `max_points` >= 5: first and last, and of equal buckets between them the smallest,
    the largest and the first non-finite value."""
    n = len(values)
    if n <= max_points:
        return np.arange(n)
    buckets = (max_points - 2) // 3
    edges = 1 + np.arange(buckets + 1) * (n - 2) // buckets
    kept = {0, n - 1}
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        bucket = values[begin:end]
        finite = np.isfinite(bucket)
        if finite.any():
            kept.add(begin + int(np.argmin(np.where(finite, bucket, np.inf))))
            kept.add(begin + int(np.argmax(np.where(finite, bucket, -np.inf))))
        if not finite.all():
            kept.add(begin + int(np.argmin(finite)))
    return np.sort(np.fromiter(kept, np.intp))
