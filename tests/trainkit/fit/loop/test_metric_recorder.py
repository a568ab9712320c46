"""What is recorded beside losses: numbers worked out by hand, the same bits with and without, resumed or not."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import trainkit as tk
from tests.support.fit_data import images, numbers, sequences, spec, vectors
from tests.support.metric_rows import is_clocked
from tests.support.resume import InterruptAt, digest, history, rows
from trainkit.data import Dataset
from trainkit.fit import checkpoint
from trainkit.fit.loop import metric_recorder
from trainkit.fit.loop.nonfinite import LossNotFiniteError

MLP = {"kind": "mlp", "hidden": [12, 8], "dropout": 0.3}
LoggedRows = list[tuple[int, str, str, float]]


def fit_and_log(document: dict[str, Any], data: Dataset, **options: Any) -> tuple[tk.FitResult, LoggedRows]:
    """The result, and every row as (step, split, name, value)."""
    events: list[dict[str, Any]] = []
    result = tk.fit(document, data, on_event=events.append, **options)
    return result, flat(events)


def flat(events: list[dict[str, Any]]) -> LoggedRows:
    return [(e["step"], *row) for e in events if e["type"] == "metrics" for row in e["rows"]]


def series(log: LoggedRows, name: str, split: str = "train") -> dict[int, float]:
    found = [(step, value) for step, of, one, value in log if (of, one) == (split, name)]
    assert len(found) == len(dict(found)), f"{name} is told twice at a step"
    return dict(found)


def test_norms_of_one_step_by_hand() -> None:
    """W = 0, b = 0, two classes: p = 1/2, so dL/dW = mean of (p - y) x' = [[-3/4, 1], [3/4, -1]], dL/db = 0.

    |g| = sqrt(25/8); with a rate of 2 the weights are then -2 g, and |w| = sqrt(25/2).
    """
    data = Dataset.from_arrays(np.array([[3.0, 0.0], [0.0, 4.0]], np.float32), np.array([0, 1]))
    document = spec(
        {"kind": "linear", "init": {"kind": "zeros"}},
        split="1:0:0",
        optimizer={"kind": "sgd", "lr": 2.0},
        early_stop=[],
        train={"epochs": 1},
    )
    _, log = fit_and_log(document, data)
    assert series(log, "grad_norm") == pytest.approx({1: math.sqrt(25 / 8)}, rel=1e-6)
    assert series(log, "weight_norm") == pytest.approx({1: math.sqrt(25 / 2)}, rel=1e-6)
    assert series(log, "grad_norm.head.output", "layers") == pytest.approx({1: math.sqrt(25 / 8)}, rel=1e-6)
    assert series(log, "weight_norm.head.output", "layers") == pytest.approx({1: math.sqrt(25 / 2)}, rel=1e-6)
    assert not [name for _, _, name, _ in log if name.startswith(("dead", "saturated"))], "it has no such units"


def test_layers_are_told_apart_by_hand() -> None:
    network = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        for parameter, values in zip(network[0].parameters(), ([[2.0, 3.0]], [6.0]), strict=True):
            parameter.copy_(torch.tensor(values))  # 2, 3, 6: a norm of 7
        for parameter, values in zip(network[3].parameters(), ([[1.0], [4.0]], [8.0, 0.0]), strict=True):
            parameter.copy_(torch.tensor(values))  # 1, 4, 8: a norm of 9
    parameters = list(network.parameters())
    norms = [float(one) for one in metric_recorder.norms([parameter.detach() for parameter in parameters])]
    layers = metric_recorder.layers_of(network, parameters)
    found = {path: metric_recorder.together([norms[place] for place in places]) for path, places in layers}
    assert found == pytest.approx({"0": 7.0, "3": 9.0}, rel=1e-6)
    assert metric_recorder.together(norms) == pytest.approx(math.sqrt(49 + 81 + 1), rel=1e-6), (
        "batch norm's scale of 1 is in all"
    )
    head_only = metric_recorder.layers_of(network, parameters[4:])
    assert head_only == [("3", [0, 1])], "of a frozen layer there is no row"


def test_of_many_layers_32_are_told_the_first_and_the_last_among_them() -> None:
    network = nn.Sequential(*[nn.Linear(1, 1) for _ in range(100)])
    chosen = [int(path) for path, _ in metric_recorder.layers_of(network, list(network.parameters()))]
    assert len(set(chosen)) == 32
    assert (chosen[0], chosen[-1]) == (0, 99)
    assert {b - a for a, b in pairwise(chosen)} == {3, 4}


@pytest.mark.parametrize("accumulation_steps", [1, 3])
def test_clipped_norms_are_those_that_clipping_found(accumulation_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[float] = []
    clip = nn.utils.clip_grad_norm_

    def clip_and_tell(*arguments: Any) -> torch.Tensor:
        found.append(float(norm := clip(*arguments)))
        return norm

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", clip_and_tell)
    train = {
        "clip_norm": 0.1,
        "clip_value": 0.01,
        "log_every_steps": 2,
        "gradient_accumulation_steps": accumulation_steps,
        "batch_size": 8,
    }
    document = spec(MLP, train=train, regularize={"l2": 1.0})
    _, log = fit_and_log(document, vectors())
    norms = series(log, "grad_norm")
    assert len(norms) >= 6
    assert norms == {step: found[step - 1] for step in norms}
    assert max(norms.values()) > 0.1, "before clipping"
    layers = {name: of for step, split, name, of in log if split == "layers" and step == max(norms)}
    of = [value for name, value in layers.items() if name.startswith("grad_norm.")]
    assert metric_recorder.together(of) == pytest.approx(norms[max(norms)], rel=1e-6), "layers before clipping too"


def test_where_nothing_clips_the_norm_is_the_one_that_clipping_would_find() -> None:
    """A bound that is never reached changes no gradient: what it finds is what is told without it."""
    _, free = fit_and_log(spec(MLP, train={"log_every_steps": 2}), vectors())
    _, bound = fit_and_log(spec(MLP, train={"log_every_steps": 2, "clip_norm": 1e9}), vectors())
    assert series(free, "grad_norm") == pytest.approx(series(bound, "grad_norm"), rel=1e-6)
    assert series(free, "weight_norm") == series(bound, "weight_norm")


def test_rows_of_log_steps_and_of_evaluations() -> None:
    """6 steps an epoch, logged every 4: 4, 8, 12 (an epoch's last, told with the evaluation), 16; evaluated after 6 ..."""
    schedule = {"kind": "cosine", "warmup_epochs": 1}
    result, log = fit_and_log(spec(MLP, schedule=schedule, train={"log_every_steps": 4}), vectors())
    for name in ("lr", "grad_norm", "weight_norm"):
        assert list(series(log, name)) == [4, 6, 8, 12, 16, 18]
    for name in ("epoch_seconds", "dead_units"):
        assert list(series(log, name)) == [6, 12, 18]
    assert list(series(log, "batch_loss")) == [4, 8, 12, 16]
    assert {split for _, split, _, _ in log} == {"train", "val", "test", "layers", "system"}
    kept = {(row["split"], row["name"], row["step"]) for row in result.history}
    assert {split for split, _, _ in kept} == {"train", "val", "test"}, "layers and machines stay out of checkpoints"
    assert {step for _, name, step in kept if name == "grad_norm"} == {6, 12, 18}
    layers = ["body.block_1.linear", "body.block_2.linear", "head.output"]
    layer_series = {name for _, split, name, _ in log if split == "layers"}
    assert layer_series == {f"{kind}_norm.{layer}" for kind in ("grad", "weight") for layer in layers} | {
        "dead_units.body.block_1.activation",
        "dead_units.body.block_2.activation",
    }


@pytest.mark.parametrize("between", [4, None])
def test_epochs_that_are_not_evaluated_have_norms_and_seconds(between: int | None) -> None:
    train = {"evaluate_every_steps": between} if between else {"evaluate_every_epochs": 2}
    _, log = fit_and_log(spec(MLP, train=train), vectors())
    assert list(series(log, "epoch_seconds")) == [6, 12, 18]
    assert set(series(log, "grad_norm")) >= {6, 12, 18}
    evaluated = set(series(log, "loss", "val"))
    assert evaluated == ({4, 8, 12, 16, 18} if between else {12, 18})
    assert set(series(log, "grad_norm.head.output", "layers")) == evaluated
    assert set(series(log, "dead_units")) == evaluated


@pytest.mark.parametrize(
    ("make", "document"),
    [
        (vectors, spec({**MLP, "norm": "batch"}, optimizer={"kind": "ema_momentum", "lr": 0.1})),
        (images, spec({"kind": "cnn", "channels": [4, 6], "spatial_dropout": 0.2}, train={"clip_norm": 0.5})),
        (sequences, spec({"kind": "lstm", "hidden": 6, "layers": 2, "dropout": 0.2}, split="8:0:2")),
    ],
    ids=["mlp", "cnn", "lstm without validation"],
)
def test_recording_changes_no_bit(make: Any, document: dict[str, Any]) -> None:
    runs = {
        level: fit_and_log({**document, "train": {**document["train"], "log_stats": level}}, make())
        for level in ("none", "totals", "layers")
    }
    assert len({digest(result.model) for result, _ in runs.values()}) == 1
    bare = [row for row in runs["none"][1] if not is_clocked(row[1], row[2])]
    assert not [row for row in bare if row[1] in ("layers", "system") or "norm" in row[2] or "units" in row[2]]
    for _, log in runs.values():
        known = set(bare)
        assert [row for row in dict.fromkeys(log) if row in known] == bare, "the same rows in the same order"
    assert "layers" not in {split for _, split, _, _ in runs["totals"][1]}
    assert series(runs["totals"][1], "grad_norm") == series(runs["layers"][1], "grad_norm")


@pytest.mark.parametrize(
    "train",
    [{}, {"clip_norm": 0.5}, {"evaluate_every_steps": 4, "log_stats": "totals"}],
    ids=["free", "clipped", "totals"],
)
def test_every_step_resumes_to_the_same_rows(train: dict[str, Any], tmp_path: Any) -> None:
    """An epoch's last step among them: its gradient is gone when the resumed attempt evaluates."""
    data, document = vectors(60), spec(MLP, train={"epochs": 2, "log_every_steps": 2, **train})
    whole: list[dict[str, Any]] = []
    expected = tk.fit(document, data, on_event=whole.append)
    for step in range(1, 7):
        events: list[dict[str, Any]] = []
        folder = tmp_path / str(step)
        first = tk.fit(document, data, on_event=events.append, control=InterruptAt(step), workdir=folder)
        result = tk.fit(document, data, on_event=events.append, resume_from=first.checkpoint)
        assert rows(events) == rows(whole), step
        untimed = [[row for row in flat(one) if not is_clocked(row[1], row[2])] for one in (events, whole)]
        assert untimed[0] == untimed[1], "each row once, in the same order"
        assert history(result) == history(expected)


def test_an_epochs_seconds_are_those_of_all_its_attempts(tmp_path: Any) -> None:
    data, document = vectors(), spec(MLP, train={"epochs": 1})
    first = tk.fit(document, data, control=InterruptAt(3), workdir=tmp_path)
    before = checkpoint.load(first.checkpoint)["position"]["epoch_seconds"]
    assert before > 0
    _, log = fit_and_log(document, data, resume_from=first.checkpoint)
    assert before < series(log, "epoch_seconds")[6] < series(log, "seconds")[6]


KINDS: dict[str, tuple[Any, dict[str, Any], set[str]]] = {
    "linear": (vectors, {"kind": "linear"}, set()),
    "svm": (vectors, {"kind": "linear_svm"}, set()),
    "regression": (numbers, {"kind": "mlp", "hidden": [6]}, {"dead_units"}),
    "tanh": (vectors, {"kind": "mlp", "hidden": [6, 6], "activation": "tanh"}, {"saturated_units"}),
    "gelu": (vectors, {"kind": "mlp", "hidden": [6], "activation": "gelu"}, set()),
    "cnn": (images, {"kind": "cnn", "channels": [3], "dense": [4]}, {"dead_units"}),
    "residual": (images, {"kind": "residual_cnn", "channels": [3]}, {"dead_units"}),
    "lstm": (sequences, {"kind": "lstm", "hidden": 4}, {"saturated_units"}),
    "gru both ways": (sequences, {"kind": "gru", "hidden": 4, "bidirectional": True}, {"saturated_units"}),
    "squeezenet": (
        lambda: images(24, side=24),
        {"kind": "torchvision", "name": "squeezenet1_1"},
        {"dead_units"},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_is_recorded(kind: str) -> None:
    make, model, units = KINDS[kind]
    result, log = fit_and_log(spec(model, train={"epochs": 1}), make())
    last = max(series(log, "epoch_seconds"))
    assert series(log, "grad_norm")[last] > 0
    named = {name for _, split, name, _ in log if split == "train" and name.endswith("_units")}
    assert named == units
    for name in units:
        assert 0 <= series(log, name)[last] <= 1
    layers = {name for _, split, name, _ in log if split == "layers" and name.startswith("grad_norm.")}
    assert "grad_norm.head.output" in layers
    assert not [m for m in result.model.network.modules() if m._forward_hooks], "nobody listens any more"


@pytest.mark.parametrize("cached", [True, False])
def test_of_a_frozen_body_only_the_head_has_norms(cached: bool) -> None:
    source = tk.fit(spec({"kind": "cnn", "channels": [3]}, train={"epochs": 1}), images()).model
    start = {"model": "mdl_1", "freeze": "body", "head_hidden": [5], "cache_features": cached}
    _, log = fit_and_log(spec({"kind": "cnn", "channels": [3]}, start_from=start), images(), source=source)
    layers = {name for _, split, name, _ in log if split == "layers"}
    norms = {name for name in layers if name.startswith("grad_norm.")}
    assert norms == {"grad_norm.head.hidden_1.linear", "grad_norm.head.output"}
    heard = {name for name in layers if name.startswith("dead_units.")}
    body = set() if cached else {"dead_units.body.block_1.activation_1"}
    assert heard == {"dead_units.head.hidden_1.activation"} | body


def test_adaptation_is_recorded_with_its_classifier() -> None:
    target = Dataset.from_arrays(np.asarray(vectors().inputs.values) + 0.5)
    _, log = fit_and_log(spec(MLP, adapt={"target_dataset": "t"}), vectors(), target_data=target)
    step = max(series(log, "epoch_seconds"))
    of_layers = [value for at, _, name, value in log if at == step and name.startswith("grad_norm.")]
    assert metric_recorder.together(of_layers) < series(log, "grad_norm")[step], (
        "the domain classifier's is in the whole"
    )


def test_what_is_not_finite_is_told_as_such() -> None:
    events: list[dict[str, Any]] = []
    model = {"kind": "mlp", "hidden": [8]}
    document = spec(model, optimizer={"kind": "sgd", "lr": 1000}, early_stop=[], train={"log_every_steps": 2})
    with pytest.raises(LossNotFiniteError):
        tk.fit(document, numbers(), on_event=events.append)
    assert not math.isfinite(list(series(flat(events), "grad_norm").values())[-1])
    assert not math.isfinite(list(series(flat(events), "weight_norm").values())[-1])


def test_use_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(metric_recorder.time, "monotonic", lambda: now)
    looks = metric_recorder.SystemUsage(torch.device("cpu"))
    assert (looks.due(evaluation=True), looks.due(evaluation=False)) == (True, False)
    now = 100.5
    held = torch.ones(1 << 22)  # 16 MiB
    rows = looks.rows()
    assert rows.keys() == {"process_memory_bytes", "cpu_percent"}, "no accelerator, no rows of it"
    assert held.nbytes < rows["process_memory_bytes"] < 1 << 40
    assert rows["cpu_percent"] >= 0
    assert not looks.due(evaluation=True)
    now = 101.5
    assert (looks.due(evaluation=True), looks.due(evaluation=False)) == (True, False)
    now = 110.5
    assert looks.due(evaluation=False)


def test_shares_of_time_and_what_no_library_tells() -> None:
    assert metric_recorder.percent(3.0, 2.0) == 150.0
    assert metric_recorder.percent(0.1, 0.0) is None
    assert metric_recorder.read_or_none(lambda: 7) == 7.0
    assert metric_recorder.read_or_none(lambda: torch.cuda.utilization(torch.device("cuda", 99))) is None


@pytest.mark.parametrize("level", ["totals", "none"])
def test_an_attempt_may_record_otherwise(level: str, tmp_path: Any) -> None:
    """Handed back after an epoch's last step, with what its evaluation would have told of the gradient."""
    document, data = spec(MLP), vectors()
    expected = tk.fit(document, data)
    first = tk.fit(document, data, control=InterruptAt(6), workdir=tmp_path)
    other = {**document, "train": {**document["train"], "log_stats": level}}
    result, log = fit_and_log(other, data, resume_from=first.checkpoint)
    assert digest(result.model) == digest(expected.model)
    assert "layers" not in {split for _, split, _, _ in log}
    assert list(series(log, "grad_norm")) == ([6, 10, 12, 18] if level == "totals" else [])
