"""What a run promises its user: events, stops, evaluations, the kept model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trainkit as tk
from tests.support.fit_data import images, numbers, sequences, spec, vectors
from trainkit.data import Dataset
from trainkit.fit.encoding.prepare import prepare
from trainkit.fit.failure import error_of
from trainkit.fit.seeding import derive, epoch_order
from trainkit.nn.build import build_model
from trainkit.spec import parse_spec, resolve

MLP = {"kind": "mlp", "hidden": [16]}


class Wishes:
    """One command after n steps."""

    def __init__(self, steps: int, **command: Any) -> None:
        self.left, self.given = steps, command

    def command(self) -> dict[str, Any] | None:
        self.left -= 1
        return self.given if self.left == 0 else None


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def test_every_event_is_json_and_the_story_is_whole(tmp_path):
    events: list[dict[str, Any]] = []
    document = spec(MLP, early_stop=[{"kind": "patience", "patience": 9}, {"kind": "diverged"}])
    result = tk.fit(document, vectors(), on_event=events.append, workdir=tmp_path)
    json.dumps(events)
    seen = kinds(events)
    assert seen[-1] == "finished"
    assert seen.index("runtime") < seen.index("metrics") < seen.index("best") < seen.index("evaluation")
    phases = [event["phase"] for event in events if event["type"] == "phase"]
    assert phases == [
        "preparing data",
        "fitting preprocessing",
        "epoch 1/3",
        "epoch 2/3",
        "epoch 3/3",
        "evaluating",
    ]
    resolved = next(event for event in events if event["type"] == "runtime")
    assert {"device", "threads", "precision", "compile", "channels_last", "versions"} <= resolved.keys()
    assert resolved["parameters"] == 6 * 16 + 16 + 16 * 3 + 3
    assert resolved["resume_exact"] is True
    epochs = [e for e in events if e["type"] == "metrics" and any(row[0] == "val" for row in e["rows"])]
    assert [e["epoch"] for e in epochs] == [1, 2, 3]
    names = {(split, name) for split, name, _ in epochs[0]["rows"]}
    assert {("train", n) for n in ("loss", "accuracy", "penalty", "lr", "samples_per_second")} <= names
    assert {("val", "loss"), ("val", "accuracy"), ("val", "f1")} <= names
    decisions = [event for event in events if event["type"] == "decision"]
    assert len(decisions) == 6
    assert set(decisions[0]) == {"type", "rule", "step", "epoch", "inputs", "action", "reason"}
    progress = [event for event in events if event["type"] == "progress"]
    assert progress[-1]["percent"] == 100.0
    assert progress[-1]["step"] == progress[-1]["steps"] == 18
    finished = events[-1]
    assert finished["stop_reason"] == "completed"
    assert sorted(finished["files"]) == ["confusion", "curves"]
    assert all(Path(path).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for path in finished["files"].values())
    assert finished["test"] == result.evaluation["metrics"]
    assert {"split", "samples", "metrics", "per_class", "confusion_matrix", "classes"} <= result.evaluation.keys()


def test_batch_loss_rows_within_an_epoch():
    events: list[dict[str, Any]] = []
    tk.fit(spec(MLP, train={"log_every_steps": 4}), vectors(), on_event=events.append)
    steps = [e["step"] for e in events if e["type"] == "metrics" and e["rows"][0][1] == "batch_loss"]
    assert steps == [4, 8, 12, 16]


def test_the_loss_is_the_mean_over_the_epoch_and_matches_a_bare_loop():
    """The same order, the same arithmetic: weights and losses equal a hand-written loop's, bit for bit."""
    from trainkit.spec import JobSpec, resolve

    data = vectors()
    document = spec(MLP, optimizer={"kind": "sgd", "lr": 0.1}, split="1:0:0", early_stop=[])
    result = tk.fit(document, data)
    resolved = resolve(JobSpec.model_validate(document), data.facts).spec
    prepared = prepare(resolved, data, torch.device("cpu"), lambda _: None)
    network = build_model(resolved.model, (6,), 3, derive(0, "init"))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, fused=True)
    losses = []
    for epoch in (1, 2, 3):
        order, total = epoch_order(120, 0, epoch), 0.0
        for start in range(0, 120, 16):
            rows = order[start : start + 16]
            loss = torch.nn.functional.cross_entropy(network(prepared.train.x[rows]), prepared.train.targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        losses.append(total / 120)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), result.model.network.parameters(), strict=True))
    assert [r["value"] for r in result.history if r["name"] == "loss"][:3] == pytest.approx(losses, rel=1e-6)


def test_weights_by_hand_are_those_of_torchs_cross_entropy():
    """Whole runs, weights of the network and losses, against a loop over CrossEntropyLoss(weight=...)."""
    rng = np.random.default_rng(0)
    y = np.array(["no", "yes", "maybe"])[(np.arange(60) % 5).clip(max=2)]
    data = Dataset.from_arrays(rng.normal(size=(60, 3)).astype(np.float32), y)
    document = spec(
        {"kind": "linear"},
        balance={"yes": 5, "no": 0.5, "maybe": 1},
        split="1:0:0",
        optimizer={"kind": "sgd", "lr": 0.3},
        train={"epochs": 3, "batch_size": 16},
    )
    result = tk.fit(document, data)
    prepared = prepare(resolve(document, data.facts).spec, data, torch.device("cpu"), lambda _text: None)
    assert prepared.classes == ("maybe", "no", "yes")
    network = build_model(parse_spec(document).model, (3,), 3, derive(0, "init"))
    loss_of = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 0.5, 5.0]))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.3)
    for epoch in range(1, 4):
        order = epoch_order(60, 0, epoch)
        for start in range(0, 60, 16):
            rows = order[start : start + 16]
            optimizer.zero_grad()
            loss_of(network(prepared.train.x[rows]), prepared.train.targets[rows]).backward()
            optimizer.step()
    for trained, expected in zip(result.model.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(trained, expected)
    loss = loss_of(network(prepared.train.x), prepared.train.targets).item()
    assert result.evaluation["metrics"]["loss"] == pytest.approx(loss, rel=1e-5)
    assert tk.evaluate_model(result.model, data)["metrics"]["loss"] == pytest.approx(loss, rel=1e-5)


def test_weighted_epoch_loss_is_a_ratio_of_sums():
    """With rate ~0 the weights stay put, so that the epoch's loss is sum(w*l)/sum(w) over the training part."""
    rng = np.random.default_rng(0)
    y = (np.arange(50) % 5 == 0).astype(np.int64)
    data = Dataset.from_arrays(rng.normal(size=(50, 3)), y)
    document = spec(
        {"kind": "linear"},
        balance="class_weights",
        split="1:0:0",
        optimizer={"kind": "sgd", "lr": 1e-12},
        train={"epochs": 1, "batch_size": 7},
    )
    result = tk.fit(document, data)
    z = torch.from_numpy(result.model.outputs(data.inputs.values))
    weights = torch.tensor([50 / (2 * 40), 50 / (2 * 10)])
    expected = torch.nn.functional.cross_entropy(z, torch.from_numpy(y), weight=weights)
    got = next(row["value"] for row in result.history if row["name"] == "loss")
    assert got == pytest.approx(float(expected), rel=1e-6)
    assert result.evaluation["metrics"]["loss"] == pytest.approx(float(expected), rel=1e-6)


def test_penalty_is_told_apart_from_the_loss_and_is_torchs_weight_decay():
    data = vectors()
    common = {"split": "1:0:0", "early_stop": []}
    penalised = tk.fit(spec({"kind": "linear"}, optimizer={"kind": "sgd"}, regularize={"l2": 12.0}, **common), data)
    decayed = tk.fit(
        spec({"kind": "linear"}, optimizer={"kind": "sgd"}, regularize={"weight_decay": 12.0 / 120}, **common), data
    )
    for a, b in zip(penalised.model.network.parameters(), decayed.model.network.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    weight = penalised.model.network.head.output.weight
    last = [row["value"] for row in penalised.history if row["name"] == "penalty"][-1]
    assert last == pytest.approx(12.0 / (2 * 120) * float(weight.detach().square().sum()), rel=1e-5)
    assert not any(row["value"] for row in decayed.history if row["name"] == "penalty")


def test_best_weights_are_restored_and_say_so():
    data = vectors(90)
    document = spec(MLP, optimizer={"kind": "adam", "lr": 0.1}, train={"epochs": 12, "monitor": "val_loss"})
    result = tk.fit(document, data)
    losses = [r["value"] for r in result.history if (r["split"], r["name"]) == ("val", "loss")]
    assert result.best_epoch == 1 + int(np.argmin(losses))
    assert result.evaluation["parts"]["val"]["loss"] == min(losses)
    kept = tk.fit({**document, "train": {**document["train"], "restore_best": False}}, data)
    assert kept.evaluation["parts"]["val"]["loss"] == losses[-1]


@pytest.mark.parametrize("keep", ["best", "last"])
def test_stop_evaluates_and_keeps_a_usable_model(keep, tmp_path):
    data, events = vectors(), []
    document = spec(MLP, train={"epochs": 50})
    result = tk.fit(
        document, data, control=Wishes(9, action="stop", keep=keep), on_event=events.append, workdir=tmp_path
    )
    assert (result.stop_reason, result.outcome, result.stopped_epoch) == ("client_stop", "finished", 2)
    assert kinds(events)[-1] == "finished"
    rows = [e for e in events if e["type"] == "metrics" and any(r[0] == "val" for r in e["rows"])]
    assert [(e["step"], e["epoch"]) for e in rows] == [(6, 1), (9, 2)]
    assert {"val", "test"} == result.evaluation["parts"].keys()
    (decision,) = runtime(events)
    assert (decision["rule"], decision["inputs"]) == ({"kind": "client_stop"}, {"keep": keep})
    assert len(tk.load_model(events[-1]["artifact"]).predict(data.inputs.values[:3])) == 3
    assert result.model.description["weights"]["of"] == keep


def test_cancel_is_prompt_and_keeps_nothing(tmp_path):
    events: list[dict[str, Any]] = []
    control = Wishes(2, action="cancel")
    result = tk.fit(spec(MLP), vectors(), control=control, on_event=events.append, workdir=tmp_path)
    assert (result.outcome, result.model) == ("cancelled", None)
    assert "evaluation" not in kinds(events)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("action", "outcome"), [("pause", "paused"), ("hand_back", "handed_back")])
def test_pause_and_hand_back_checkpoint(action, outcome, tmp_path):
    events: list[dict[str, Any]] = []
    result = tk.fit(spec(MLP), vectors(), control=Wishes(4, action=action), on_event=events.append, workdir=tmp_path)
    assert (result.outcome, result.stop_reason, result.model) == (outcome, "shutdown", None)
    assert events[-1]["type"] == "checkpoint"
    assert events[-1]["step"] == 4
    assert result.checkpoint.exists()


def runtime(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == "decision" and event["action"] == "stop"]


def test_time_limit():
    events: list[dict[str, Any]] = []
    document = spec(MLP, train={"epochs": 10**6}, resources={"max_seconds": 0.05})
    result = tk.fit(document, vectors(), on_event=events.append)
    assert result.stop_reason == "time_limit"
    assert result.model is not None
    (decision,) = runtime(events)
    assert decision["rule"] == {"kind": "max_seconds", "seconds": 0.05}
    assert decision["inputs"]["seconds"] >= decision["inputs"]["budget"] == 0.05


def test_evaluations_every_so_many_steps():
    """6 steps an epoch, 3 epochs: after steps 4, 8, 12 (an epoch's last), 16, and 18 because training ends there."""
    events: list[dict[str, Any]] = []
    document = spec(MLP, early_stop=[{"kind": "patience", "patience": 99}], train={"evaluate_every_steps": 4})
    tk.fit(document, vectors(), on_event=events.append)
    metrics = [e for e in events if e["type"] == "metrics"]
    measured = [(e["step"], e["epoch"]) for e in metrics if any(split == "val" for split, _, _ in e["rows"])]
    assert measured == [(4, 1), (8, 2), (12, 2), (16, 3), (18, 3)]
    assert [e["step"] for e in events if e["type"] == "decision"] == [4, 8, 12, 16, 18]


def test_evaluating_between_epochs_changes_no_weight():
    document = spec({"kind": "mlp", "dropout": 0.3, "norm": "batch"}, train={"restore_best": False})
    often = {**document, "train": {**document["train"], "evaluate_every_steps": 1}}
    plain, evaluated_often = (tk.fit(one, vectors()).model.network.state_dict() for one in (document, often))
    assert all(torch.equal(plain[name], evaluated_often[name]) for name in plain)


def test_the_best_epoch_is_that_of_the_patience_rule():
    """With a min_delta that nothing exceeds the first evaluation stays the best, in the decisions and in the result."""
    events: list[dict[str, Any]] = []
    rule = {"kind": "patience", "monitor": "val_loss", "min_delta": 50.0, "patience": 3}
    document = spec(MLP, optimizer={"kind": "adam", "lr": 0.05}, early_stop=[rule], train={"epochs": 9})
    result = tk.fit(document, vectors(), on_event=events.append)
    losses = [r["value"] for r in result.history if (r["split"], r["name"]) == ("val", "loss")]
    assert min(losses) < losses[0], "a smaller loss was seen, but not smaller by 50"
    assert (result.best_epoch, result.stopped_epoch, result.stop_reason) == (1, 4, "early_stop")
    assert runtime(events)[0]["inputs"]["best_epoch"] == 1
    assert result.evaluation["parts"]["val"]["loss"] == losses[0]


def test_a_document_of_bad_form_is_a_spec_error_with_all_problems():
    with pytest.raises(tk.SpecError) as caught:
        tk.fit(spec({"kind": "mlpp"}, optimizer={"kind": "adamm"}, balance="evenly"), vectors())
    assert {problem.pointer for problem in caught.value.problems} == {"/model/kind", "/optimizer/kind", "/balance"}


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"kind": "target", "value": 0.3}, "target_reached"),
        ({"kind": "patience", "patience": 1, "min_delta": 99.0}, "early_stop"),
        ({"kind": "no_progress", "evaluations": 2, "min_delta": 1e9}, "no_progress"),
        ({"kind": "time_budget", "seconds": 1e-6}, "time_limit"),
    ],
)
def test_rules_end_training(rule, reason):
    result = tk.fit(spec(MLP, early_stop=[rule], train={"epochs": 9}), vectors())
    assert result.stop_reason == reason
    assert result.stopped_epoch < 9


def test_divergence_stops_at_once_and_the_best_weights_stay():
    events: list[dict[str, Any]] = []
    data = vectors()
    document = spec(
        {"kind": "mlp", "hidden": [8], "activation": "linear"},
        optimizer={"kind": "sgd", "lr": 900.0},
        loss={"kind": "mse"},
        train={"epochs": 50, "evaluate_every_steps": 1},
    )
    result = tk.fit(document, data, on_event=events.append)
    assert result.stop_reason == "diverged"
    stop = next(e for e in events if e["type"] == "decision" and e["action"] == "stop")
    assert any(not math.isfinite(value) for value in stop["inputs"].values() if isinstance(value, float))
    assert result.best_epoch == 1
    assert math.isfinite(result.evaluation["metrics"]["loss"])


def test_regression_reports_in_the_targets_own_units():
    data = numbers()
    document = spec({"kind": "linear"}, optimizer={"kind": "adam", "lr": 0.05}, train={"epochs": 10})
    result = tk.fit(document, data)
    metrics, scale = result.evaluation["metrics"], float(result.model.scaler.scale[0])
    assert scale > 50
    assert metrics["mse"] == pytest.approx(metrics["loss"] * scale**2, rel=1e-4), "the loss is in scaled units"
    assert metrics["r2"] > 0.9
    predicted = np.array([p["value"] for p in result.model.predict(data.inputs.values)])
    assert np.abs(predicted - data.targets).mean() < 0.3 * np.std(data.targets)
    assert {r["name"] for r in result.history if r["split"] == "train"} >= {"loss", "mse", "mae"}


def test_several_targets():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3))
    data = Dataset.from_arrays(x, np.stack([x[:, 0] * 5 + 50, x[:, 1] - x[:, 2]], axis=1))
    result = tk.fit(spec({"kind": "linear"}, optimizer={"kind": "adam", "lr": 0.1}, train={"epochs": 40}), data)
    (prediction,) = result.model.predict(x[:1])
    assert prediction["value"] == pytest.approx(data.targets[0], abs=3.0)


def test_sequences_of_any_length():
    result = tk.fit(
        spec({"kind": "gru", "hidden": 8}, optimizer={"kind": "adam", "lr": 0.05}, train={"epochs": 15}), sequences(160)
    )
    assert result.evaluation["metrics"]["accuracy"] >= 0.9
    falling = np.stack([-np.arange(4.0), -np.arange(4.0)], axis=1)
    assert result.model.predict(falling)[0]["label"] == "falls"


def test_images_with_augmentation_and_mixing():
    document = spec(
        {"kind": "cnn", "channels": [4]},
        augment=[{"kind": "horizontal_flip"}, {"kind": "mixup"}],
        preprocess=[{"kind": "z_score"}],
    )
    result = tk.fit(document, images())
    assert all(math.isfinite(row["value"]) for row in result.history)


def test_one_sample_left_over_joins_the_batch_before_it():
    data = vectors(33)
    document = spec({"kind": "mlp", "hidden": [4], "norm": "batch"}, split="1:0:0", train={"epochs": 1})
    events: list[dict[str, Any]] = []
    tk.fit(document, data, on_event=events.append)
    assert events[-1]["type"] == "finished"
    assert max(e["step"] for e in events if e["type"] == "metrics") == 2


def test_non_finite_inputs_are_named():
    x = np.ones((20, 3))
    x[7, 2] = np.nan
    events: list[dict[str, Any]] = []
    with pytest.raises(tk.DataError, match="nan"):
        tk.fit(spec(MLP, split="1:0:0"), Dataset.from_arrays(x, np.arange(20) % 2), on_event=events.append)
    error = events[-1]["error"]
    assert (error["code"], error["layer"], error["retryable"]) == ("invalid_data", "data", False)
    assert "sample 7" in error["message"]


def test_spec_errors_come_as_events_too():
    events: list[dict[str, Any]] = []
    with pytest.raises(tk.SpecError):
        tk.fit(spec({"kind": "cnn"}), vectors(), on_event=events.append)
    assert events[-1]["error"]["layer"] == "spec"
    assert events[-1]["error"]["evidence"]["problems"][0]["pointer"] == "/model/kind"


def test_what_auto_chose_is_reused():
    before = torch.get_num_threads()
    first = tk.fit(spec(MLP), vectors())
    again = tk.fit(spec(MLP, train={"threads": "auto"}), vectors(), runtime={**first.runtime, "threads": 2})
    assert again.runtime["threads"] == 2
    assert torch.get_num_threads() == before


def test_the_process_is_left_as_it_was():
    torch.manual_seed(5)
    before = torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    tk.fit(spec({"kind": "mlp", "dropout": 0.5}), vectors())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before[1:]


@pytest.mark.parametrize(
    ("error", "code", "layer", "retryable"),
    [
        (MemoryError(), "out_of_memory", "resource", True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out_of_memory", "resource", True),
        (torch.OutOfMemoryError("CUDA out of memory."), "out_of_gpu_memory", "resource", False),
        (OSError(28, "No space left on device"), "disk_full", "platform", True),
        (RuntimeError("device cuda was asked for, and there is none"), "device_unavailable", "resource", False),
        (KeyError("x"), "internal_error", "internal", True),
    ],
)
def test_errors_say_what_happened(error, code, layer, retryable):
    described = error_of(error)
    assert (described["code"], described["layer"], described["retryable"]) == (code, layer, retryable)
    assert described["message"]
    assert described["hint"]
