"""Forecasting as regression on windows: the last `window` steps of a series predict the step `horizon` ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trainkit.data import ArrayInputs, Dataset, SequenceInputs, TableInputs
from trainkit.data.dataset import make_dataset
from trainkit.spec import JobSpec
from trainkit.spec.facts import target_column
from trainkit.spec.forecasting import by_time, cuts_windows, numeric_columns, too_short, window_of
from trainkit.spec.problems import Problem, SpecError

Series = NDArray[np.float32]


def as_windows(spec: JobSpec, data: Dataset) -> Dataset:
    """A dataset of sequences (window, F) with the values to forecast, parts cut by time within each series.

    Sequences without targets are series themselves, all of whose F features are forecast. Tables and arrays are one
    series in the order of their rows: with a target (column or y) its past joins the features and it alone is
    forecast, without one all columns are. Validation and test windows forecast later steps than training windows do.
    Sequences that come with a number each are left as they are. Raises SpecError when the series are too short.
    """
    if not cuts_windows(spec, data.facts):
        return data
    series, forecast = _series(spec, data)
    windows = cut_windows(series, forecast, spec)
    names = tuple(numeric_columns(spec, data.facts)) if isinstance(data.inputs, TableInputs) else None
    known = {"constant_target": data.facts.constant_target, "series": names}  # as `windowed` says without cutting
    return replace(windows, facts=windows.facts.model_copy(update=known))


def cut_windows(series: Sequence[Series], forecast: Sequence[int], spec: JobSpec) -> Dataset:
    """The windows of series (T, F) as sequences, with the values of the features `forecast` some steps later as targets.

    Raises SpecError when the series are too short.
    """
    shortest = min((len(values) for values in series), default=0)
    horizon, window = spec.dataset.horizon, window_of(spec, shortest)
    xs: list[Series] = []
    ys: list[NDArray[np.float64]] = []
    parts: list[NDArray[np.int8]] = []
    for values in series:
        count = len(values) - window - horizon + 1
        if count < 1:
            continue
        xs += [values[start : start + window] for start in range(count)]
        ys.append(values[window + horizon - 1 :, list(forecast)].astype(np.float64))
        parts.append(_by_time(count, spec))
    if not xs:
        raise SpecError([too_short(window, horizon, max((len(values) for values in series), default=0))])
    offsets = np.arange(len(xs) + 1, dtype=np.int64) * window
    inputs = SequenceInputs(np.concatenate(xs).astype(np.float32), offsets)
    return make_dataset("sequences", inputs, np.concatenate(ys), None, np.concatenate(parts))


def _series(spec: JobSpec, data: Dataset) -> tuple[list[Series], list[int]]:
    """The series (T, F) and which of the F features are forecast."""
    inputs = data.inputs
    if isinstance(inputs, SequenceInputs):
        cuts = zip(inputs.offsets[:-1], inputs.offsets[1:], strict=True)
        return [inputs.values[a:b] for a, b in cuts], list(range(inputs.values.shape[1]))
    if isinstance(inputs, TableInputs):
        return _table_series(spec, data, inputs)
    if isinstance(inputs, ArrayInputs):
        values = np.asarray(inputs.values, np.float32).reshape(len(inputs.values), -1)
        if data.targets is None:
            return [values], list(range(values.shape[1]))
        y = np.asarray(data.targets, np.float32).reshape(len(values), -1)
        return [np.concatenate([values, y], axis=1)], list(range(values.shape[1], values.shape[1] + y.shape[1]))
    raise SpecError([Problem("/task", "not_a_series", "images are no series of numbers", 'Use "classification".')])


def _table_series(spec: JobSpec, data: Dataset, inputs: TableInputs) -> tuple[list[Series], list[int]]:
    names = numeric_columns(spec, data.facts)
    values = np.stack([np.asarray(inputs.columns[name].values, np.float32) for name in names], axis=1)
    one = target_column(spec, data.facts) is not None
    return [values], [len(names) - 1] if one else list(range(len(names)))


def _by_time(count: int, spec: JobSpec) -> NDArray[np.int8]:
    return np.repeat(np.arange(3, dtype=np.int8), by_time(count, spec))
