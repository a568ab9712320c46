"""The published rules on records made by hand, each as its paper describes the problem, and on a run that is sound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.diagnosis.baselines import autotrainer, deeplocalize, umlaut
from tests.support.diagnosis_records import record

EPOCHS = 20
LEARNING = np.linspace(0.3, 0.94, EPOCHS)
FALLING = np.linspace(1.5, 0.2, EPOCHS)
SOUND = {
    "train_loss": FALLING,
    "val_loss": FALLING + 0.05,
    "train_accuracy": LEARNING,
    "val_accuracy": LEARNING - 0.01,
    "train_batch_loss": FALLING,
    "train_lr": np.full(EPOCHS, 1e-3),
    "train_dead_units": np.full(EPOCHS, 0.1),
    "layers_grad_norm.body.block_1.linear": np.linspace(1.0, 0.5, EPOCHS),
    "layers_grad_norm.head.output": np.linspace(0.9, 0.4, EPOCHS),
    "layers_weight_norm.body.block_1.linear": np.linspace(4.0, 5.0, EPOCHS),
    "layers_weight_norm.head.output": np.linspace(1.0, 2.0, EPOCHS),
}
STUCK = {
    "train_accuracy": np.full(EPOCHS, 0.1) + np.linspace(0, 0.01, EPOCHS),
    "val_accuracy": np.full(EPOCHS, 0.1) + np.linspace(0, 0.01, EPOCHS),
}


def problems(rules: Any, changes: dict[str, Any] | None = None, **document: Any) -> list[str]:
    """Names of the problems of a sound run with some of its series, or its document, changed."""
    series = {name.replace(".", "__"): list(values) for name, values in {**SOUND, **(changes or {})}.items()}
    return [one.problem for one in rules(record({"train": {"epochs": EPOCHS}, **document}, **series))]


def test_nothing_is_found_in_a_sound_run() -> None:
    assert problems(autotrainer) == problems(deeplocalize) == problems(umlaut) == []


@pytest.mark.parametrize(
    ("problem", "changes"),
    [
        ("dying ReLU", {**STUCK, "train_dead_units": np.full(EPOCHS, 0.8)}),
        ("exploding gradient", {**STUCK, "layers_grad_norm.body.block_1.linear": np.full(EPOCHS, 80.0)}),
        ("vanishing gradient", {**STUCK, "layers_grad_norm.body.block_1.linear": np.full(EPOCHS, 1e-6)}),
        ("slow convergence", STUCK),
        ("exploding gradient", {"train_loss": np.r_[FALLING[:-1], np.nan]}),
        ("exploding gradient", {"val_loss": np.r_[FALLING[:-1], 2e5]}),
        ("oscillating loss", {"train_accuracy": 0.8 + 0.1 * (-1.0) ** np.arange(EPOCHS)}),
    ],
)
def test_autotrainer_finds_its_five_problems(problem: str, changes: dict[str, Any]) -> None:
    assert problems(autotrainer, changes) == [problem]


def test_autotrainer_leaves_a_trained_model_with_odd_gradients_alone() -> None:
    assert problems(autotrainer, {"layers_grad_norm.body.block_1.linear": np.full(EPOCHS, 1e-6)}) == []


@pytest.mark.parametrize(
    ("problem", "changes"),
    [
        ("numerical error", {"train_loss": np.r_[FALLING[:-1], np.inf]}),
        ("error in forward", {"layers_dead_units.body.block_1.activation": np.ones(EPOCHS)}),
        ("error in weights", {"layers_weight_norm.body.block_1.linear": np.full(EPOCHS, 3.0)}),
        ("error in weights", {"layers_weight_norm.head.output": np.zeros(EPOCHS)}),
        ("model does not learn", {"train_batch_loss": np.full(EPOCHS, 2.3)}),
        ("error in delta weights", {"layers_grad_norm.body.block_1.linear": np.zeros(EPOCHS)}),
    ],
)
def test_deeplocalize_ends_at_its_first_error(problem: str, changes: dict[str, Any]) -> None:
    assert problems(deeplocalize, changes) == [problem]


@pytest.mark.parametrize(
    ("problem", "changes", "document"),
    [
        ("overfitting", {"val_loss": np.r_[FALLING[:-1], 0.9]}, {}),
        ("overconfident validation accuracy", {"val_accuracy": np.r_[LEARNING[:-1], 0.97]}, {}),
        ("overconfident validation accuracy", {"val_accuracy": LEARNING + 0.06}, {}),
        ("learning rate is high", {"train_lr": np.full(EPOCHS, 0.02)}, {}),
        ("learning rate is low", {"train_lr": np.full(EPOCHS, 1e-8)}, {}),
        ("NaN in loss", {"train_loss": np.r_[FALLING[:-1], np.nan]}, {}),
        ("input is not normalized", {}, {"preprocess": [{"kind": "z_score"}]}),
        ("missing softmax before the loss", {}, {"loss": {"kind": "mse"}}),
        ("high dropout rate", {}, {"model": {"kind": "mlp", "hidden": [8], "dropout": 0.6}}),
        ("missing activation", {}, {"model": {"kind": "mlp", "hidden": [8], "activation": "linear"}}),
    ],
)
def test_umlaut_warns(problem: str, changes: dict[str, Any], document: dict[str, Any]) -> None:
    assert problem in problems(umlaut, changes, **document)
