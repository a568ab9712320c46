"""A replay of a run's own log is the run's own decisions, for every rule, interrupted or not."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch

import trainkit as tk
from tests.support.fit_data import numbers, spec, vectors
from tests.support.resume import InterruptAt
from trainkit.data import Dataset
from trainkit.data.splits import split_indices
from trainkit.diagnose.early_stopping import Evaluation
from trainkit.diagnose.replay import Replay, observations
from trainkit.fit.evaluation.evaluate import standard_error
from trainkit.spec.early_stop import Patience, check_logged, parse_rules
from trainkit.spec.problems import SpecError

ALL: list[dict[str, Any]] = [
    {"kind": "patience", "monitor": "val_accuracy", "patience": 6, "min_delta": 0.001},
    {"kind": "noise_patience", "monitor": "val_loss", "patience": 7, "standard_errors": 0.1},
    {"kind": "noise_patience", "monitor": "val_accuracy", "patience": 8, "standard_errors": 0.5},
    {"kind": "target", "monitor": "val_f1", "value": 0.9999},
    {"kind": "diverged", "factor": 20},
    {"kind": "time_budget", "seconds": 3000},
    {"kind": "no_progress", "evaluations": 3, "min_delta": 0.002},
    {"kind": "stalled", "evaluations": 4, "min_delta": 0.01},
    {"kind": "gap", "patience": 4, "min_gap": 0.001, "min_growth": 0.01},
]


def log_of(events: list[dict[str, Any]]) -> list[tuple[str, int, int, float]]:
    return [
        (f"{split}_{name}", event["step"], event["epoch"], value)
        for event in events
        if event["type"] == "metrics"
        for split, name, value in event["rows"]
    ]


def taken(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    decisions = [event for event in events if event["type"] == "decision" and event["rule"]["kind"] != "client_stop"]
    return [{name: value for name, value in event.items() if name != "type"} for event in decisions]


def replayed(result: Any, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    replay = Replay(result.spec.early_stop, result.spec.train.monitor or "train_loss")
    decisions = [decision for moment in observations(log_of(events)) for decision in replay.feed(moment)]
    return [{name: value for name, value in d.as_dict().items() if name != "stop_reason"} for d in decisions]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("train", [{}, {"evaluate_every_steps": 4}, {"evaluate_every_epochs": 3}], ids=str)
def test_a_replay_decides_as_training_did(seed: int, train: dict[str, Any]) -> None:
    document = spec(
        {"kind": "mlp", "hidden": [12], "dropout": 0.2}, early_stop=ALL, train={"epochs": 14, "seed": seed, **train}
    )
    events: list[dict[str, Any]] = []
    result = tk.fit(document, vectors(seed=seed), on_event=events.append)
    assert len(taken(events)) >= len(ALL) * 4
    assert repr(replayed(result, events)) == repr(taken(events))


@pytest.mark.parametrize("seed", range(3))
def test_so_it_is_after_interruptions(seed: int, tmp_path: Any) -> None:
    document = spec({"kind": "mlp", "hidden": [12]}, early_stop=ALL, train={"epochs": 12, "seed": seed})
    chooser, events, checkpoint, attempts = random.Random(seed), [], None, 0
    while attempts < 60:
        result = tk.fit(
            document,
            vectors(seed=seed),
            on_event=events.append,
            control=InterruptAt(chooser.randrange(1, 16)),
            workdir=tmp_path,
            resume_from=checkpoint,
        )
        checkpoint, attempts = result.checkpoint, attempts + 1
        if result.outcome == "finished":
            break
    assert attempts > 2
    assert repr(replayed(result, events)) == repr(taken(events))


def test_each_rule_that_stops_stops_in_the_replay_too() -> None:
    stopping = [
        {"kind": "patience", "monitor": "val_accuracy", "patience": 1},
        {"kind": "noise_patience", "patience": 1, "standard_errors": 50},
        {"kind": "target", "monitor": "val_accuracy", "value": 0.2},
        {"kind": "time_budget", "seconds": 1e-9},
        {"kind": "no_progress", "evaluations": 2, "min_delta": 10},
        {"kind": "stalled", "evaluations": 1, "min_delta": 10},
        {"kind": "gap", "patience": 1, "min_growth": 0.01},
    ]
    rng = np.random.default_rng(0)
    noise = Dataset.from_arrays(rng.normal(size=(90, 6)).astype(np.float32), rng.integers(0, 3, 90))
    for rule in stopping:
        events: list[dict[str, Any]] = []
        result = tk.fit(
            spec(
                {"kind": "mlp", "hidden": [32]},
                early_stop=[rule],
                train={"epochs": 40},
                optimizer={"kind": "adam", "lr": 0.03},
            ),
            noise,
            on_event=events.append,
        )
        assert result.stop_reason != "completed", rule
        assert repr(replayed(result, events)) == repr(taken(events)), rule


@pytest.mark.parametrize(("factor", "lr"), [(None, 1.0), (None, 1.5), (30.0, 1.0)])
def test_divergence_is_replayed_at_its_step(factor: float | None, lr: float) -> None:
    """In a batch, in an evaluation, and by its factor; what training adds is where the loss broke."""
    rule = {"kind": "diverged", "factor": factor}
    events: list[dict[str, Any]] = []
    document = spec({"kind": "linear"}, optimizer={"kind": "sgd", "lr": lr}, early_stop=[rule], train={"epochs": 40})
    result = tk.fit(document, numbers(), on_event=events.append)
    assert result.stop_reason == "diverged"
    from_replay, from_training = replayed(result, events), taken(events)
    assert repr(from_replay[:-1]) == repr(from_training[:-1])
    last, true = from_replay[-1], from_training[-1]
    assert {**true, "inputs": 0, "reason": 0} == {**last, "inputs": 0, "reason": 0}
    assert true["reason"].startswith(last["reason"])
    assert repr({name: true["inputs"][name] for name in last["inputs"]}) == repr(last["inputs"])
    assert ("where" in true["inputs"]) == (factor is None)


def test_evaluations_that_no_rule_was_asked_about_are_not_replayed() -> None:
    events: list[dict[str, Any]] = []
    result = tk.fit(
        spec({"kind": "linear"}, train={"epochs": 3}),
        vectors(),
        on_event=events.append,
        control=type("Stop", (), {"command": InterruptAt(8, "stop").command})(),
    )
    assert result.stop_reason == "client_stop"
    assert repr(replayed(result, events)) == repr(taken(events))


def test_standard_errors_are_those_of_the_validation_samples() -> None:
    data = vectors(200)
    document = spec({"kind": "linear"}, train={"epochs": 1}, split={"train": 6, "validation": 4, "test": 0})
    events: list[dict[str, Any]] = []
    result = tk.fit(document, data, on_event=events.append)
    logged = {name: value for name, _, _, value in log_of(events)}
    held = split_indices(result.spec.split, 200, data.targets, None).validation
    shares = result.model.answer(data.inputs.values[held])
    losses = -np.log(shares[np.arange(len(held)), data.targets[held]])
    assert logged["val_loss"] == pytest.approx(losses.mean(), rel=1e-4)
    assert logged["val_loss_se"] == pytest.approx(losses.std(ddof=1) / math.sqrt(len(held)), rel=1e-4)
    p = float((shares.argmax(1) == data.targets[held]).mean())
    assert logged["val_accuracy_se"] == pytest.approx(math.sqrt(p * (1 - p) / len(held)))


def test_a_weighted_standard_error_by_hand() -> None:
    losses = torch.tensor([1.0, 3.0], dtype=torch.float64)
    assert standard_error(losses, 2.0, None) == pytest.approx(1.0)  # s = sqrt 2
    assert standard_error(losses, 2.0, torch.tensor([5.0, 5.0])) == pytest.approx(1.0)
    # weights 1 and 3: mean 2.5, w(l - mean) = -1.5 and 1.5: sqrt(4.5 * 2/1) / 4
    assert standard_error(losses, 2.5, torch.tensor([1.0, 3.0])) == pytest.approx(0.75)


def test_what_a_stop_saves_and_costs() -> None:
    values = [3.0, 2.0, 2.5, 2.6, 1.0, 1.5]
    rows = [
        row
        for n, value in enumerate(values, start=1)
        for row in (("val_loss", n * 10, n, value), ("train_seconds", n * 10, n, n * 2.0))
    ]
    replay = Replay([Patience(patience=2)], "val_loss")
    decisions = [decision for moment in observations(rows) for decision in replay.feed(moment)]
    assert [d.epoch for d in decisions] == [1, 2, 3, 4]
    assert replay.stop == decisions[-1]
    assert replay.saved() == {"epochs": 2, "steps": 20, "seconds": 4.0}
    cost = {"metric": "val_loss", "best_if_stopped": 2.0, "best_seen": 1.0, "regret": 1.0}
    assert replay.cost() == cost
    patient = Replay([Patience(patience=3)], "val_loss")
    for moment in observations(rows):
        assert isinstance(moment, Evaluation)
        patient.feed(moment)
    assert (patient.stop, patient.saved()) == (None, {"epochs": 0, "steps": 0, "seconds": 0.0})
    assert patient.cost() == {**cost, "best_if_stopped": 1.0, "regret": 0.0}


@pytest.mark.parametrize(
    ("rule", "pointer", "code"),
    [
        ({"kind": "patience", "monitor": "val_los"}, "/rules/0/monitor", "unknown_metric"),
        ({"kind": "patience", "monitor": "test_loss"}, "/rules/0/monitor", "test_is_held_out"),
        ({"kind": "patience", "mode": "max"}, "/rules/0/mode", "wrong_mode"),
        ({"kind": "patience", "patience": 0}, "/rules/0/patience", "greater_than_equal"),
        ({"kind": "patiense"}, "/rules/0/kind", "unknown_kind"),
        ({"kind": "gap", "patients": 3}, "/rules/0/patients", "unknown_field"),
        ({"patience": 3}, "/rules/0", "missing_kind"),
    ],
)
def test_bad_rules_are_pointed_at(rule: dict[str, Any], pointer: str, code: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_rules({"rules": [rule]})
    (problem,) = caught.value.problems
    assert (problem.pointer, problem.code) == (pointer, code)
    assert problem.hint


def test_a_rule_whose_series_was_not_logged_is_pointed_at() -> None:
    rules = parse_rules(
        {"rules": [{"kind": "diverged"}, {"kind": "patience", "monitor": "val_roc_auc"}, {"kind": "gap"}]}
    )
    with pytest.raises(SpecError) as caught:
        check_logged(rules or (), {"train_loss", "train_seconds"})
    assert [problem.pointer for problem in caught.value.problems] == ["/rules/1/monitor", "/rules/2"]
    assert "Logged: train_loss." in caught.value.problems[0].hint
