"""A loss that is not finite is explained: step, layer, sample. Without usable weights the job fails with a name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trainkit as tk
from tests.support.fit_data import images, sequences, spec, vectors
from tests.support.resume import InterruptAt
from trainkit.data import Dataset
from trainkit.fit.loop import fit as run
from trainkit.fit.loop import nonfinite, train_step, training_run
from trainkit.fit.loop.nonfinite import LossNotFiniteError, first_broken
from trainkit.fit.seeding import epoch_order
from trainkit.nn.network import Network

CPU = torch.device("cpu")
HOT = {"kind": "sgd", "lr": 900.0}
LINEAR_MLP = {"kind": "mlp", "hidden": [8], "activation": "linear"}


def failing(document: dict[str, Any], data: Dataset, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The `failed` event's error of a run that ends without usable weights, and all events."""
    events: list[dict[str, Any]] = []
    with pytest.raises(LossNotFiniteError):
        tk.fit(document, data, on_event=events.append, **options)
    assert events[-1]["type"] == "failed"
    return events[-1]["error"], events


def stops(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == "decision" and event["action"] == "stop"]


def poisoned(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Do something to the job when it is ready to train."""
    inner = run.train

    def train(run_to_train: Any) -> Any:
        change(run_to_train.setup)
        return inner(run_to_train)

    monkeypatch.setattr(run, "train", train)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_an_exploding_mlp_fails_with_step_and_layer(accumulation_steps: int, tmp_path: Path) -> None:
    document = spec(
        LINEAR_MLP,
        optimizer=HOT,
        loss={"kind": "mse"},
        train={"gradient_accumulation_steps": accumulation_steps},
    )
    error, events = failing(document, vectors(), workdir=tmp_path)
    evidence = error["evidence"]
    assert (error["code"], error["layer"], error["retryable"]) == ("loss_not_finite", "spec", False)
    assert "clip_norm" in error["hint"]
    # the squares overflow before the outputs do
    assert (evidence["where"], evidence["layer"], evidence["layer_type"]) == ("loss", "head.output", "Linear")
    assert 1e19 < evidence["max_abs_before"] < math.inf
    assert f"at step {evidence['step']} (epoch 1)" in error["message"]
    (stop,) = stops(events)
    assert (stop["rule"]["kind"], stop["step"], stop["inputs"]["layer"]) == (
        "diverged",
        evidence["step"],
        "head.output",
    )
    assert "head.output" in stop["reason"]
    assert any("head.output" in event["message"] for event in events if event["type"] == "log")
    last = [e for e in events if e["type"] == "metrics"][-1]
    assert (last["step"], last["rows"]) == (evidence["step"], [["train", "batch_loss", evidence["batch_loss"]]])
    assert not (tmp_path / "model").exists()


def test_the_first_layer_to_overflow_is_named() -> None:
    """Weights of 1e30 in the second block: its input is finite, its output is not, and no later layer is blamed."""
    for kind, broken, shape in (("mlp", "body.block_2.linear", (6,)), ("cnn", "body.block_2.conv_1", (1, 8, 8))):
        model = (
            {"kind": kind, "hidden": [8, 8]} if kind == "mlp" else {"kind": kind, "channels": [4, 4], "norm": "none"}
        )
        document = spec(model)
        data = vectors() if kind == "mlp" else images()
        network = tk.fit(document, data).model.network.train()
        names = [name for name, module in network.named_modules() if next(module.children(), None) is None]
        layer = next((name for name in names if name == broken), None) or next(n for n in names if "block_2" in n)
        with torch.no_grad():
            for weight in network.get_submodule(layer).parameters():
                weight.fill_(3e38)
        x = torch.ones(5, *shape)
        target = torch.zeros(5, dtype=torch.int64)
        loss = nn.CrossEntropyLoss(reduction="none")
        found = first_broken({"": network}, lambda x, _, n=network: n(x), [(x, None, target)], loss, CPU)
        assert found is not None
        assert (found["where"], found["layer"]) == ("output", layer)
        assert found["layer_type"] == ("Linear" if kind == "mlp" else "Conv2d")
        assert 0 < found["max_abs_before"] < 1e6
        assert found["max_abs_weight"] == pytest.approx(3e38)


@pytest.mark.parametrize(
    ("model", "data"),
    [
        ({"kind": "mlp", "hidden": [8] * 6, "activation": "linear"}, vectors()),
        ({"kind": "cnn", "channels": [4] * 6, "norm": "none", "activation": "linear", "pool": "none"}, images()),
    ],
    ids=["mlp", "cnn"],
)
def test_a_rate_that_explodes_names_the_layer_whose_output_overflowed(
    model: dict[str, Any], data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Any] = []
    poisoned(monkeypatch, jobs.append)
    error, _ = failing(spec(model, optimizer={"kind": "sgd", "lr": 1000.0}, train={"epochs": 9}), data)
    evidence, job = error["evidence"], jobs[0]
    assert evidence["where"] == "output"
    assert evidence["layer"] in error["message"]
    assert math.isfinite(evidence["max_abs_before"])
    # the weights are those that the step met: layer by layer over the same batch, by hand
    samples = len(job.data.draw)
    step = (evidence["step"] - 1) % math.ceil(samples / 16)
    rows = job.data.draw[epoch_order(samples, 0, evidence["epoch"])][16 * step : 16 * step + 16]
    x, _ = job.data.train.take(rows)
    for name, layer in job.network.named_modules():
        if next(layer.children(), None) is None:
            x = layer(x)
            if not bool(torch.isfinite(x).all()):
                assert (evidence["layer"], evidence["layer_type"]) == (name, type(layer).__name__)
                return
    pytest.fail("every layer's output is finite")


@pytest.mark.parametrize(
    ("model", "data", "parameter", "kind"),
    [
        ({"kind": "mlp", "hidden": [8, 8]}, vectors(), "body.block_2.linear.bias", "Linear"),
        ({"kind": "lstm", "hidden": 4}, sequences(), "body.layers.layer_1.weight_hh_l0", "LSTM"),
    ],
)
def test_a_nan_among_the_weights_is_named(
    model: dict[str, Any], data: Dataset, parameter: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(job: Any) -> None:
        with torch.no_grad():
            job.network.get_parameter(parameter).view(-1)[1] = math.nan

    poisoned(monkeypatch, change)
    evidence = failing(spec(model), data)[0]["evidence"]
    assert (evidence["where"], evidence["parameter"]) == ("parameter", parameter)
    assert (evidence["layer"], evidence["layer_type"]) == (parameter.rpartition(".")[0], kind)
    assert (evidence["step"], evidence["epoch"]) == (1, 1)


@pytest.mark.parametrize("augment", [[], [{"kind": "mixup", "alpha": 0.4}]])
def test_a_bad_value_in_the_data_is_named_by_its_sample(augment: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    bad: list[int] = []

    def change(job: Any) -> None:
        job.data.train.x[17, 3] = math.inf
        bad.append(int(job.data.train.index[17]))

    poisoned(monkeypatch, change)
    error, _ = failing(spec({"kind": "linear"}, augment=augment), vectors())
    assert (error["evidence"]["where"], error["evidence"]["sample"]) == ("input", bad[0])
    assert f"sample {bad[0]} of the dataset" in error["message"]


def test_usable_weights_are_kept_and_the_reason_said() -> None:
    events: list[dict[str, Any]] = []
    document = spec(LINEAR_MLP, optimizer=HOT, loss={"kind": "mse"}, train={"epochs": 50, "evaluate_every_steps": 1})
    result = tk.fit(document, vectors(), on_event=events.append)
    assert (result.stop_reason, result.best_epoch) == ("diverged", 1)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in result.model.network.state_dict().values())
    assert stops(events)[0]["inputs"]["where"] in ("loss", "output", "parameter")
    json.dumps(events)


@pytest.mark.parametrize("monitor", [None, "val_accuracy"])
def test_without_a_rule_it_fails_all_the_same(monitor: str | None) -> None:
    """An accuracy can be told of NaN too, but weights that are not finite are never the best."""
    document = spec(LINEAR_MLP, optimizer=HOT, loss={"kind": "mse"}, early_stop=[], train={"monitor": monitor})
    error, events = failing(document, vectors())
    assert (error["code"], error["evidence"]["where"]) == ("loss_not_finite", "loss")
    assert not any(event["type"] == "best" for event in events)
    explanations = [event for event in events if event["type"] == "log" and "head.output" in event["message"]]
    assert len(explanations) == 1, "explained once"
    assert max(event["step"] for event in events if event["type"] == "metrics") == 18, "it ran to its end"


def test_an_update_that_ruins_the_last_weights_is_found_without_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    document = spec({"kind": "linear"}, split="1:0:0", optimizer={"kind": "sgd", "lr": 0.1}, early_stop=[])
    inner = train_step.max_norm_

    def ruin(module: nn.Module, c: float) -> None:
        inner(module, c)
        with torch.no_grad():
            next(module.parameters()).fill_(math.nan)

    monkeypatch.setattr(train_step, "max_norm_", ruin)
    document = {**document, "regularize": {"max_norm": 3}, "train": {"epochs": 1, "batch_size": 500}}
    evidence = failing(document, vectors())[0]["evidence"]
    assert (evidence["where"], evidence["layer"]) == ("parameter", "head.output")


def test_what_was_found_outlives_an_interruption(tmp_path: Path) -> None:
    document = spec(LINEAR_MLP, optimizer=HOT, loss={"kind": "mse"}, early_stop=[])
    whole, _ = failing(document, vectors())
    part = tk.fit(document, vectors(), control=InterruptAt(12), workdir=tmp_path)
    resumed, events = failing(document, vectors(), resume_from=part.checkpoint)
    assert resumed == whole
    assert not any("not finite" in event.get("message", "") for event in events if event["type"] == "log")


def test_an_accelerator_reads_the_losses_at_the_log_steps_and_names_the_first_bad_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its buffer, on the CPU: the losses are seen late, so the step is exact and the weights are ruined already."""
    document = spec(LINEAR_MLP, optimizer=HOT, loss={"kind": "mse"}, train={"log_every_steps": 5})
    exact = failing(document, vectors())[0]["evidence"]["step"]

    class Buffered(nonfinite.LossMonitor):
        def __init__(self, device: torch.device, every: int, step: int) -> None:
            super().__init__(device, every, step)
            self._seen = torch.zeros(every)

    monkeypatch.setattr(training_run, "LossMonitor", Buffered)
    error, events = failing(document, vectors())
    evidence = error["evidence"]
    assert evidence["step"] == exact
    assert evidence["read_at_step"] == 5
    assert evidence["where"] == "parameter"
    assert "read at step 5" in stops(events)[0]["reason"]
    whole_epoch = {**document, "train": {**document["train"], "log_every_steps": 500}}
    assert failing(whole_epoch, vectors())[0]["evidence"]["read_at_step"] == 6, "at the epoch's end at the latest"


def test_looking_leaves_buffers_generators_and_hooks_alone() -> None:
    network = Network(nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)), nn.Linear(3, 2))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    drawn = torch.get_rng_state()
    loss = nn.CrossEntropyLoss(reduction="none")
    piece = (torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), None, torch.zeros(4, dtype=torch.int64))
    assert first_broken({"": network}, lambda x, _: network(x), [piece], loss, CPU) is None
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_code_between_layers_is_its_enclosing_modules() -> None:
    class Doubling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Identity(), nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.outer(self.inner(x) * 1e30)
            return out

    network = Network(nn.Sequential(Doubling()), nn.Identity())
    piece = (torch.full((2, 3), 1e10), None, torch.zeros(2, dtype=torch.int64))
    loss = nn.CrossEntropyLoss(reduction="none")
    found = first_broken({"": network}, lambda x, _: network(x), [piece], loss, CPU)
    assert found is not None
    assert (found["where"], found["layer"], found["layer_type"]) == ("output", "body.0", "Doubling")
    assert found["max_abs_before"] == pytest.approx(1e10)
