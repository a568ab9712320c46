"""`tk.autopilot` on real data: its jobs are those that `tk.fit` makes, and its best is better than the first."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

import trainkit as tk
from trainkit.diagnose.autopilot import CompletedStep
from trainkit.spec import SpecError

SPEC = {
    "dataset": "cancer",
    "split": "6:2:2",
    "model": {"kind": "mlp", "hidden": [16]},
    "train": {"epochs": 5, "threads": 1},
    "resources": {"device": "cpu"},
}


def cancer() -> tk.Dataset:
    x, y = load_breast_cancer(return_X_y=True)
    return tk.Dataset.from_arrays(x.astype(np.float32), y)


def test_it_scales_the_inputs_and_keeps_the_best() -> None:
    heard: list[CompletedStep] = []
    result = tk.autopilot(SPEC, cancer(), jobs=4, on_run=heard.append)
    assert heard == result.tried
    assert [entry["from"] for entry in result.explanation][:2] == [None, 0]
    assert result.explanation[1]["code"] == "unscaled_inputs"
    assert result.explanation[1]["measured"]["outcome"] == "improved"
    assert result.done.reason == "jobs_spent"
    assert result.best is result.runs[result.explanation[-1]["best"]]
    assert result.best.result is not None
    assert result.best.result.evaluation is not None
    assert result.best.result.evaluation["parts"]["test"]["accuracy"] > 0.9
    alone = tk.fit(result.best.record.spec, cancer())
    assert alone.evaluation == result.best.result.evaluation
    figure = result.tried[result.runs.index(result.best)].metrics["val_loss"]
    losses = [row["value"] for row in alone.history if (row["split"], row["name"]) == ("val", "loss")]
    assert (figure.value, figure.epoch) == (min(losses), alone.best_epoch)


def test_a_rate_that_diverges_is_evidence() -> None:
    linear = {
        "model": {"kind": "linear"},
        "preprocess": [{"kind": "z_score"}],
        "optimizer": {"kind": "sgd", "lr": 1000.0},
    }
    x, y = load_diabetes(return_X_y=True)
    result = tk.autopilot(
        tk.JobSpec.model_validate({**SPEC, **linear}), tk.Dataset.from_arrays(x.astype(np.float32), y), jobs=2
    )
    assert result.best is result.runs[1]
    assert result.runs[0].error is not None
    assert result.runs[0].error["code"] == "loss_not_finite"
    assert "It failed" in result.explanation[0]["text"]
    assert result.explanation[1]["code"] == "learning_rate_too_high"
    assert result.done.best == 1


def test_what_does_not_fit_the_data_is_refused() -> None:
    with pytest.raises(SpecError):
        tk.autopilot({**SPEC, "model": {"kind": "lstm"}}, cancer())
