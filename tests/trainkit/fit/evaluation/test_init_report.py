"""The report tells saturation and dead units, from hand-made networks whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.fit_data import sequences
from trainkit.data import Dataset
from trainkit.fit.evaluation.init_report import init_report, init_report_png
from trainkit.spec import JobSpec


def report(activation: str, **init: object) -> dict[str, dict[str, object]]:
    random = np.random.default_rng(0)
    data = Dataset.from_arrays(random.random((400, 100)), random.integers(0, 2, 400))
    model = {"kind": "mlp", "hidden": [50, 50], "activation": activation, "init": init}
    content = init_report(JobSpec.model_validate({"dataset": "d", "model": model}), data)
    assert init_report_png(content).startswith(b"\x89PNG")
    return {layer["name"]: layer for layer in content["layers"]}


def first_activation(layers: dict[str, dict[str, object]]) -> dict[str, object]:
    return next(layer for layer in layers.values() if layer["values"] == "activation")


def test_unscaled_uniform_weights_saturate_a_sigmoid_and_xavier_does_not() -> None:
    assert first_activation(report("sigmoid", kind="uniform", low=0.0, high=1.0))["saturated_share"] > 0.99
    assert first_activation(report("sigmoid", kind="xavier_normal"))["saturated_share"] < 0.05


def test_zeros_make_every_unit_dead() -> None:
    layers = report("relu", kind="zeros")
    assert all(layer["dead_share"] == 1 for layer in layers.values())


def test_he_keeps_the_scale_of_a_relu_network() -> None:
    layers = [layer for layer in report("relu", kind="he_normal").values() if layer["values"] == "pre_activation"]
    assert layers[1]["std"] == pytest.approx(layers[0]["std"], rel=0.6)
    assert all(sum(layer["histogram"]["counts"]) > 0 for layer in layers)


@pytest.mark.parametrize("shortest", [3, 9], ids=["packed", "equal lengths"])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_states_of_recurrent_layers_are_reported(kind: str, shortest: int) -> None:
    data = sequences(60, shortest=shortest)
    layers = {}
    for std in (0.01, 100.0):
        model = {"kind": kind, "hidden": 6, "layers": 2, "init": {"kind": "normal", "std": std}}
        content = init_report(JobSpec.model_validate({"dataset": "d", "model": model}), data)
        assert [layer["values"] for layer in content["layers"]] == ["activation", "activation", "pre_activation"]
        layers[std] = content["layers"][0]
    assert layers[0.01]["saturated_share"] == 0
    assert layers[100.0]["saturated_share"] > 0.02, "a gate stands between the tanh and an LSTM's state"
    assert layers[0.01]["min"] >= -1
