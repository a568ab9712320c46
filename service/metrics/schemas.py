"""Wire format of the metric log."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.jobs.states import State
from service.response_model import ResponseModel
from service.timestamps import Timestamp


class MetricRowOut(ResponseModel):
    """One point. A value that JSON cannot hold is null, and `nonfinite` says which it was."""

    seq: int
    attempt: int
    split: str
    name: str
    step: int
    epoch: int
    value: float | None
    at: Timestamp
    superseded: bool
    nonfinite: Literal["nan", "inf", "-inf"] | None = None


class StreamEndOut(ResponseModel):
    """How the job ended whose stream closes."""

    state: Literal[State, "deleted"]
    stop_reason: str | None


class MetricsOut(ResponseModel):
    """Rows after the cursor; `next` is the cursor to go on from, `done` says that nothing more will come."""

    data: list[MetricRowOut]
    next: int
    done: bool


class SeriesOut(ResponseModel):
    """Columns of one series, of the rows that count; null for a value that is not finite."""

    seq: list[int]
    step: list[int]
    epoch: list[int]
    value: list[float | None]
    elapsed: list[float]
    """Seconds from `start` to when each value was measured, to the millisecond. Pauses and waiting count."""


class AllSeriesOut(ResponseModel):
    """Series by name: `val_accuracy`, `train_loss`, ..."""

    start: Timestamp
    """When the job started, or was created where it has not started. `elapsed` counts from here."""
    series: dict[str, SeriesOut]


class JobSeriesOut(AllSeriesOut):
    """One of several jobs."""

    id: str
    name: str
    state: str


class JobsSeriesOut(ResponseModel):
    """The jobs in the order in which they were named."""

    jobs: list[JobSeriesOut]


def series_wire(columns: Mapping[str, NDArray[Any]], start: float) -> dict[str, list[Any]]:
    """Columns as JSON has them; `start` in Unix seconds."""
    plain = {name: column.tolist() for name, column in columns.items() if name != "at"}
    plain["elapsed"] = np.round(columns["at"] - start, 3).tolist()
    plain["value"] = [value if isfinite(value) else None for value in plain["value"]]
    return plain
