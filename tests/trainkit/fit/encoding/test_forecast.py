from __future__ import annotations

import numpy as np
import pytest

import trainkit as tk
from tests.support.fit_data import spec
from trainkit.data import Column, Dataset, SequenceInputs, TableInputs
from trainkit.data.dataset import make_dataset
from trainkit.fit.encoding.forecast import as_windows
from trainkit.spec import JobSpec


def forecast(window: int | None = None, horizon: int = 1, **fields: object) -> JobSpec:
    dataset = {"id": "d", "horizon": horizon, **({} if window is None else {"window": window})}
    document = spec({"kind": "lstm", "hidden": 8}, task="forecasting", **fields)
    return JobSpec.model_validate({**document, "dataset": dataset})


def series(*lengths: int) -> Dataset:
    values = np.concatenate([np.arange(length, dtype=np.float32) + 100 * i for i, length in enumerate(lengths)])[
        :, None
    ]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return make_dataset("sequences", SequenceInputs(values, offsets), None, None, None)


def test_windows_by_hand():
    windows = as_windows(forecast(window=3, horizon=2), series(7, 4, 5))
    x = windows.inputs.values.reshape(-1, 3)
    assert x.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [200, 201, 202]]  # the series of 4 steps is too short
    assert windows.targets.tolist() == [[4], [5], [6], [204]]
    assert windows.facts.lengths == (3, 3)


def test_parts_are_cut_by_time_within_each_series():
    windows = as_windows(forecast(window=2), series(22, 12))
    assert windows.split.tolist() == [0] * 16 + [1] * 2 + [2] * 2 + [0] * 8 + [1] + [2]
    for part, later in ((0, 1), (1, 2)):
        first_targets = windows.targets[:20, 0]
        assert first_targets[windows.split[:20] == part].max() < first_targets[windows.split[:20] == later].min()


def test_a_table_is_one_series_and_its_target_is_forecast():
    columns = {
        "load": Column(np.arange(10.0)),
        "price": Column(np.arange(10.0) * 10),
        "town": Column(np.zeros(10, np.int32), ("Ulm",)),
    }
    data = make_dataset("table", TableInputs(columns), None, None, None, target="price")
    windows = as_windows(forecast(window=2), data)
    assert windows.inputs.values[:2].tolist() == [[0, 0], [1, 10]]
    assert windows.targets.tolist() == [[20], [30], [40], [50], [60], [70], [80], [90]]


def test_arrays_with_and_without_y():
    x = np.arange(12.0).reshape(6, 2)
    assert as_windows(forecast(window=2), Dataset.from_arrays(x)).targets[0].tolist() == [4, 5]
    with_y = as_windows(forecast(window=2), Dataset.from_arrays(x, np.arange(6.0) / 10))
    assert with_y.targets[0].tolist() == pytest.approx([0.2])
    assert with_y.inputs.values.shape[1] == 3


def test_too_short_series_are_said():
    with pytest.raises(tk.SpecError, match="need 9 steps, the longest series has 6"):
        as_windows(forecast(window=8), series(6))


def test_a_wave_is_forecast_better_than_by_repeating_the_last_value():
    t = np.arange(400)
    wave = np.sin(t * 0.3)[:, None].astype(np.float32)
    data = make_dataset("sequences", SequenceInputs(wave, np.array([0, 400])), None, None, None)
    document = forecast(window=12, horizon=3, optimizer={"kind": "adam", "lr": 0.02}, train={"epochs": 15})
    result = tk.fit(document, data)
    naive = float(np.mean((wave[3:] - wave[:-3]) ** 2))
    assert result.evaluation["metrics"]["mse"] < 0.1 * naive
    assert result.evaluation["split"] == "test"
    (prediction,) = result.model.predict(wave[:12])
    assert prediction["value"] == pytest.approx(float(wave[14, 0]), abs=0.3)
