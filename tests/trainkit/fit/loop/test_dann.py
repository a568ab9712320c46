from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import trainkit as tk
from tests.support.fit_data import spec, vectors
from trainkit.data import Dataset
from trainkit.fit.loop.dann import _Reverse, reversal_strength


def test_the_gradient_is_reversed_and_scaled():
    x = torch.randn(3, requires_grad=True)
    y = _Reverse.apply(x, 0.25)
    assert torch.equal(y, x)
    y.sum().backward()
    assert torch.equal(x.grad, torch.full((3,), -0.25))


def test_the_strength_rises_from_nothing():
    assert reversal_strength(2.0, 0.0) == 0.0
    assert reversal_strength(2.0, 0.5) == pytest.approx(2.0 * (2 / (1 + math.exp(-5)) - 1))
    assert reversal_strength(2.0, 1.0) == pytest.approx(2.0, rel=1e-3)


def moons(n: int, degrees: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    angle = rng.uniform(0, np.pi, n)
    x = np.stack([np.cos(angle), np.sin(angle)], 1)
    x[y == 1] = np.array([1.0, 0.5]) - x[y == 1]
    x = x - np.array([0.5, 0.25]) + rng.normal(scale=0.05, size=x.shape)
    turn = np.deg2rad(degrees)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return x @ rotation.T, y


def test_adapting_to_turned_moons_beats_ignoring_them():
    x, y = moons(400, 0, 0)
    turned, truth = moons(400, 35, 1)
    source, target = Dataset.from_arrays(x, y), Dataset.from_arrays(turned)
    document = spec(
        {"kind": "mlp", "hidden": [24, 24]},
        split="8:2:0",
        optimizer={"kind": "adam", "lr": 5e-3},
        train={"epochs": 40, "batch_size": 32, "restore_best": False},
    )

    def accuracy(**fields: object) -> float:
        result = tk.fit({**document, **fields}, source, target_data=target if fields else None)
        predicted = [int(p["label"]) for p in result.model.predict(turned)]
        assert result.evaluation["metrics"]["accuracy"] > 0.95, "the source is still learnt"
        return float(np.mean(np.array(predicted) == truth))

    ignoring = accuracy()
    adapting = accuracy(adapt={"target_dataset": "ds_target"})
    assert adapting > ignoring + 0.03


def test_adaptation_resumes_exactly(tmp_path):
    data = vectors()
    target = Dataset.from_arrays(np.asarray(data.inputs.values) + 0.5)
    document = spec({"kind": "mlp", "hidden": [8], "dropout": 0.2}, adapt={"target_dataset": "t"})

    class HandBack:
        left = 8

        def command(self):
            self.left -= 1
            return {"action": "hand_back"} if self.left == 0 else None

    whole = tk.fit(document, data, target_data=target).model.network.state_dict()
    part = tk.fit(document, data, target_data=target, control=HandBack(), workdir=tmp_path)
    resumed = tk.fit(document, data, target_data=target, resume_from=part.checkpoint).model.network.state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_missing_target_data_is_said():
    with pytest.raises(tk.SpecError, match="target dataset was not given"):
        tk.fit(spec({"kind": "mlp"}, adapt={"target_dataset": "t"}), vectors())
