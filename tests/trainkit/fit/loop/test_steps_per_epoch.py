"""`train.steps_per_epoch`, Keras's meaning: epochs are stretches of one stream of passes over the training part."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import trainkit as tk
from tests.support.fit_data import numbers, spec, vectors
from trainkit.fit.loop.result import FitResult
from trainkit.fit.seeding import epoch_order
from trainkit.spec import resolve
from trainkit.spec.estimate import estimate

MLP = {"kind": "mlp", "hidden": [8]}
PASS = 6
"""Steps of a pass: 96 training samples in batches of 16."""


def fitted(**train: Any) -> FitResult:
    return tk.fit(spec(MLP, train={"monitor": "train_loss", "restore_best": False, **train}, early_stop=[]), vectors())


def same_weights(one: FitResult, other: FitResult) -> bool:
    pairs = zip(one.model.network.parameters(), other.model.network.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def values(result: FitResult, split: str, name: str) -> list[tuple[int, int, float]]:
    return [
        (row["step"], row["epoch"], row["value"])
        for row in result.history
        if (row["split"], row["name"]) == (split, name)
    ]


def test_as_many_steps_as_a_pass_are_the_pass() -> None:
    plain, same = fitted(epochs=3), fitted(epochs=3, steps_per_epoch=PASS)
    assert same_weights(plain, same)
    assert values(plain, "val", "loss") == values(same, "val", "loss")
    assert values(plain, "train", "loss") == values(same, "train", "loss")


@pytest.mark.parametrize(("steps", "epochs", "passes"), [(4, 3, 2), (9, 2, 3), (1, 6, 1), (18, 1, 3)])
def test_the_stream_of_batches_is_that_of_whole_passes(steps: int, epochs: int, passes: int) -> None:
    assert steps * epochs == PASS * passes
    plain, cut = fitted(epochs=passes), fitted(epochs=epochs, steps_per_epoch=steps)
    assert same_weights(plain, cut)
    assert plain.evaluation is not None
    assert cut.evaluation is not None
    assert plain.evaluation["metrics"] == cut.evaluation["metrics"]
    ends = [(steps * epoch, epoch) for epoch in range(1, epochs + 1)]
    assert [(step, epoch) for step, epoch, _ in values(cut, "val", "loss")] == ends
    assert [(step, epoch) for step, epoch, _ in values(cut, "train", "loss")] == ends
    assert cut.stopped_epoch == epochs


@pytest.mark.parametrize("steps", [4, 9])
def test_training_metrics_are_means_over_the_epochs_own_samples(steps: int) -> None:
    """With a rate of about 0 the weights stay put. 130 samples in batches of 16 end each pass with a batch of 2."""
    document = spec(
        {"kind": "linear"},
        split="1:0:0",
        optimizer={"kind": "sgd", "lr": 1e-12},
        train={"epochs": 5, "steps_per_epoch": steps},
    )
    data = numbers(130)
    result = tk.fit(document, data)
    assert result.evaluation is not None
    predicted = [one["value"] for one in result.model.predict(data.inputs.values)]
    errors = (torch.tensor(predicted) - torch.from_numpy(data.targets)).square()
    sizes = [16] * 8 + [2]
    stream = torch.cat([epoch_order(130, 0, number) for number in range(1, 7)])
    ends = torch.tensor(sizes * 6).cumsum(0).tolist()
    for epoch, (step, found_epoch, value) in enumerate(values(result, "train", "mse"), 1):
        assert (step, found_epoch) == (steps * epoch, epoch)
        start = 0 if epoch == 1 else ends[steps * (epoch - 1) - 1]
        assert value == pytest.approx(float(errors[stream[start : ends[steps * epoch - 1]]].mean()), rel=1e-5)


def test_schedules_and_estimates_count_the_steps() -> None:
    data = vectors()
    document = spec(MLP, schedule={"kind": "cosine"}, train={"epochs": 2, "steps_per_epoch": 3, "log_every_steps": 1})
    result = tk.fit(document, data)
    rates = [rate for _, _, rate in values(result, "train", "lr")]
    assert rates[-1] == pytest.approx(1e-3 * (1 + torch.cos(torch.tensor(torch.pi * 5 / 6)).item()) / 2)
    assert estimate(resolve(document, data.facts), data.facts)["steps_per_epoch"] == 3
