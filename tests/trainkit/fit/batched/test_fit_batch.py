"""Trials trained as one model are what each is alone: the same rows, decisions and weights, up to rounding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import trainkit as tk
from tests.support.fit_data import images, numbers, sequences, spec, vectors
from tests.support.metric_rows import is_clocked
from trainkit.data import Dataset
from trainkit.fit.batched import fit_batch
from trainkit.fit.batched.calibration import Calibration
from trainkit.fit.loop.nonfinite import LossNotFiniteError

MLP = {"kind": "mlp", "hidden": [12, 8]}
Document = dict[str, Any]
TrialEvents = list[tuple[int, dict[str, Any]]]
TIGHT = {"rel": 1e-4, "abs": 1e-5}
"""float32, sums in another order, over whole short runs."""


def seeds(document: Document, trials: int = 3) -> list[Document]:
    """Trials that differ in seed, in split, and so in the sizes of their parts."""
    return [
        {**document, "split": {"train": 7 + k, "seed": k}, "train": {**document["train"], "seed": k}}
        for k in range(trials)
    ]


def rows(history: list[dict[str, Any]]) -> dict[tuple[int, str, str], float]:
    values = {(row["step"], row["split"], row["name"]): row["value"] for row in history}
    return {key: value for key, value in values.items() if not is_clocked(*key[1:])}


def rows_of_events(events: list[dict[str, Any]]) -> dict[tuple[int, str, str], float]:
    """Those that the history leaves out, too: of batches and layers."""
    flat = [(e["step"], *row) for e in events if e["type"] == "metrics" for row in e["rows"]]
    return {(step, split, name): value for step, split, name, value in flat if not is_clocked(split, name)}


def together(documents: Sequence[Document], data: Dataset, **options: Any) -> tuple[list[Any], TrialEvents]:
    trial_events: TrialEvents = []
    results = fit_batch(
        documents, data, when="always", on_event=lambda k, event: trial_events.append((k, event)), **options
    )
    return results, trial_events


def assert_same_as_alone(documents: Sequence[Document], data: Dataset, **tolerance: float) -> list[tk.FitResult]:
    """Everything that a run tells and leaves, but what clocks say."""
    results, trial_events = together(documents, data)
    for trial, (document, result) in enumerate(zip(documents, results, strict=True)):
        events: list[dict[str, Any]] = []
        alone = tk.fit(document, data, on_event=events.append)
        events_of_trial = [event for k, event in trial_events if k == trial]
        assert (result.stop_reason, result.best_epoch, result.stopped_epoch) == (
            alone.stop_reason,
            alone.best_epoch,
            alone.stopped_epoch,
        )
        expected = rows_of_events(events)
        assert rows_of_events(events_of_trial) == pytest.approx(expected, **(tolerance or TIGHT), nan_ok=True)
        assert rows(result.history).keys() == rows(alone.history).keys()
        assert decisions(events_of_trial) == decisions(events)
        torch.testing.assert_close(
            result.model.network.state_dict(), alone.model.network.state_dict(), rtol=1e-3, atol=1e-4
        )
        assert result.runtime["batched"] is True
        assert result.runtime["trials"] == len(documents)
    return results


def decisions(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(e["rule"], e["epoch"], e["step"], e["action"]) for e in events if e["type"] == "decision"]


OPTIMIZERS = [
    {"kind": "sgd", "lr": 0.1},
    {"kind": "ema_momentum", "lr": 0.1},
    {"kind": "heavy_ball", "lr": 0.02},
    {"kind": "nesterov", "lr": 0.02},
    {"kind": "adagrad", "lr": 0.05},
    {"kind": "rmsprop", "lr": 0.005, "eps": 1e-4},
    {"kind": "adam", "lr": 0.005, "eps": 1e-4},
    {"kind": "adamw", "lr": 0.005, "eps": 1e-4},
    {"kind": "nadam", "lr": 0.005, "eps": 1e-4},
    {"kind": "lion", "lr": 1e-5},
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: one["kind"])
def test_every_optimizer_at_its_own_rate_and_decay(optimizer: Document) -> None:
    documents = [
        {
            **document,
            "optimizer": {**optimizer, "lr": optimizer["lr"] * (1 + k)},
            "regularize": {"weight_decay": 0.1 * k},
        }
        for k, document in enumerate(seeds(spec(MLP)))
    ]
    assert_same_as_alone(documents, vectors())


CASES: dict[str, tuple[Any, Document]] = {
    "linear": (vectors(), spec({"kind": "linear"})),
    "svm": (vectors(), spec({"kind": "linear_svm"}, regularize={"l2": 1.0})),
    "dropout": (vectors(), spec({**MLP, "dropout": 0.4, "input_dropout": 0.1})),
    "batch norm": (vectors(113), spec({**MLP, "norm": "batch", "dropout": 0.2}, optimizer=OPTIMIZERS[2])),
    "layer norm": (vectors(), spec({**MLP, "norm": "layer"}, regularize={"weight_decay": 0.1})),
    "group norm": (
        vectors(),
        spec({"kind": "mlp", "hidden": [32], "norm": "group", "activation": "tanh"}, optimizer=OPTIMIZERS[2]),
    ),
    "clipped": (vectors(), spec(MLP, optimizer=OPTIMIZERS[0], train={"clip_norm": 0.2, "clip_value": 0.05})),
    "class weights, smoothed": (
        Dataset.from_arrays(
            np.asarray(vectors().inputs.values)[:100], np.minimum(np.asarray(vectors().targets)[:100], 1)
        ),
        spec(MLP, balance="class_weights", regularize={"label_smoothing": 0.1}),
    ),
    "oversampled": (vectors(100), spec(MLP, balance="oversample")),
    "regression": (numbers(), spec(MLP, optimizer=OPTIMIZERS[2], loss={"kind": "huber"})),
    "scaled and with noise": (
        vectors(),
        spec(MLP, preprocess=[{"kind": "z_score"}], augment=[{"kind": "noise", "std": 0.1}, {"kind": "mixup"}]),
    ),
    "cnn": (
        images(),
        spec(
            {"kind": "cnn", "channels": [4, 6], "spatial_dropout": 0.2, "block_dropout": 0.2, "dropout": 0.2},
            optimizer=OPTIMIZERS[2],
            augment=[{"kind": "rotate", "degrees": 10}],
        ),
    ),
    "cnn, flattened": (
        images(channels=3),
        # A bias just before a norm by channel has no gradient but rounding's, which Adam makes whole steps of.
        spec(
            {"kind": "cnn", "channels": [4], "norm": "group", "head": "flatten", "dense": [6], "pool": "average"},
            optimizer=OPTIMIZERS[2],
        ),
    ),
    "between epochs": (
        vectors(),
        spec(MLP, train={"evaluate_every_steps": 4, "log_every_steps": 3, "log_stats": "totals"}),
    ),
    "table of images as vectors": (images(), spec(MLP)),
}


@pytest.mark.parametrize("case", CASES)
def test_trials_are_what_they_are_alone(case: str) -> None:
    data, document = CASES[case]
    assert_same_as_alone(seeds(document), data)


@pytest.mark.parametrize(
    "schedule",
    [
        {"kind": "cosine", "warmup_epochs": 1},
        {"kind": "one_cycle"},
        {"kind": "reduce_on_plateau", "patience": 1, "factor": 0.5, "min_delta": 0.05},
    ],
    ids=lambda one: one["kind"],
)
def test_every_trial_follows_its_own_schedule(schedule: Document) -> None:
    documents = seeds(spec(MLP, optimizer={"kind": "ema_momentum", "lr": 0.2}, schedule=schedule, train={"epochs": 5}))
    documents[1]["schedule"] = {"kind": "constant"}
    assert_same_as_alone(documents, vectors())


def test_folds_of_unequal_size() -> None:
    """123 samples in 5 folds: training parts differ by a sample, so the last batches of an epoch do too."""
    data = vectors(123)
    documents = [
        spec(
            {**MLP, "dropout": 0.2}, split={"validation": 1, "test": 0, "folds": 5, "fold": k}, train={"batch_size": 10}
        )
        for k in range(5)
    ]
    results = assert_same_as_alone(documents, data)
    assert len({result.evaluation["samples"] for result in results}) > 1


def test_penalties_and_bounds_are_each_trials_own() -> None:
    regularize = [
        {},
        {"l1": 0.5, "max_norm": 0.8},
        {"l2": 5.0, "weight_decay": 0.1},
        {"l1": 0.1, "l2": 1.0, "max_norm": 1.2},
    ]
    documents = [
        {**document, "regularize": penalties}
        for document, penalties in zip(
            seeds(spec(MLP, optimizer={"kind": "sgd", "lr": 0.3}), 4), regularize, strict=True
        )
    ]
    results = assert_same_as_alone(documents, vectors())
    lengths = [
        max(float(w.detach().norm(dim=1).max()) for w in result.model.network.parameters() if w.ndim == 2)
        for result in results
    ]
    assert lengths[1] == pytest.approx(0.8, rel=1e-5)
    assert lengths[3] == pytest.approx(1.2, rel=1e-5)
    assert lengths[0] > 1.2, "the bounds are ones that bite"


def test_steps_of_an_epoch_and_l1_are_each_trials_own() -> None:
    changes = [
        ({}, {}),
        ({"steps_per_epoch": 2}, {"l1": 2}),
        ({"steps_per_epoch": 11}, {"l1": 2, "l1_update": "subgradient"}),
    ]
    base = spec(MLP, optimizer={"kind": "sgd", "lr": 0.1, "momentum": 0.5}, balance={"0": 1, "1": 2, "2": 3})
    documents = [
        {**document, "train": {**document["train"], **train}, "regularize": regularize}
        for document, (train, regularize) in zip(seeds(base, 3), changes, strict=True)
    ]
    results = assert_same_as_alone(documents, vectors())
    zeros = [sum(int((w == 0).sum()) for w in result.model.network.parameters() if w.ndim == 2) for result in results]
    assert zeros[0] == zeros[2] == 0 < zeros[1]


def test_every_trial_starts_from_its_own_first_weights() -> None:
    kinds = [{"kind": "he_normal"}, {"kind": "xavier_uniform", "gain": 0.5}, {"kind": "normal", "std": 0.2}]
    documents = [spec({**MLP, "init": kind}, optimizer={"kind": "sgd", "lr": 0.1}) for kind in kinds]
    results = assert_same_as_alone(documents, vectors())
    first, *others = [result.history[0]["value"] for result in results]
    assert first not in others


def test_trials_stop_at_epochs_of_their_own() -> None:
    rule = {"kind": "patience", "monitor": "val_loss", "patience": 1, "min_delta": 0.02}
    documents = [
        {**document, "early_stop": [rule], "optimizer": {"kind": "sgd", "lr": lr}}
        for document, lr in zip(seeds(spec(MLP, train={"epochs": 12}), 4), (0.5, 0.003, 0.05, 0.2), strict=True)
    ]
    documents[2]["train"] = {**documents[2]["train"], "epochs": 3}
    results = assert_same_as_alone(documents, vectors())
    assert len({result.stopped_epoch for result in results}) >= 3, "they stop one after another"


def test_a_diverging_trial_ends_alone() -> None:
    documents = [
        {**document, "optimizer": {"kind": "sgd", "lr": lr}, "loss": {"kind": "mse"}}
        for document, lr in zip(
            seeds(spec({"kind": "mlp", "hidden": [8], "activation": "linear"}, train={"epochs": 4})),
            (0.01, 50.0, 0.02),
            strict=True,
        )
    ]
    results, trial_events = together(documents, vectors())
    assert [result.stop_reason for result in results if not isinstance(result, Exception)] == ["completed"] * 2
    assert isinstance(results[1], LossNotFiniteError), "as alone: nothing was kept"
    with pytest.raises(LossNotFiniteError) as alone:
        tk.fit(documents[1], vectors())
    assert results[1].evidence["step"] == alone.value.evidence["step"]
    (failed,) = [event for k, event in trial_events if k == 1 and event["type"] == "failed"]
    assert failed["error"]["code"] == "loss_not_finite"
    for k in (0, 2):
        assert rows(results[k].history) == pytest.approx(rows(tk.fit(documents[k], vectors()).history), **TIGHT)


def test_the_order_of_trials_does_not_matter() -> None:
    documents = [
        {**document, "optimizer": {"kind": "adam", "lr": 0.002 * (k + 1), "eps": 1e-4}}
        for k, document in enumerate(seeds(spec({**MLP, "dropout": 0.3}), 4))
    ]
    order = [2, 0, 3, 1]
    first, _ = together(documents, vectors())
    second, _ = together([documents[k] for k in order], vectors())
    for place, k in enumerate(order):
        assert rows(second[place].history) == pytest.approx(rows(first[k].history), **TIGHT)


def test_one_trial_is_the_loop() -> None:
    assert_same_as_alone([spec({**MLP, "dropout": 0.5})], vectors(), rel=1e-5, abs=1e-6)


class StopAt:
    """Wishes `action` from the `step`-th time on that it is asked."""

    def __init__(self, step: int, action: str) -> None:
        self.left, self.action = step, action

    def command(self) -> dict[str, Any] | None:
        self.left -= 1
        return {"action": self.action, "keep": "last"} if self.left < 0 else None


def test_a_stop_ends_one_trial_and_keeps_its_model() -> None:
    documents = seeds(spec(MLP))
    results, _ = together(documents, vectors(), control=[None, StopAt(7, "stop"), None])
    assert [result.stop_reason for result in results] == ["completed", "client_stop", "completed"]
    alone = tk.fit(documents[1], vectors(), control=StopAt(7, "stop"))
    assert rows(results[1].history) == pytest.approx(rows(alone.history), **TIGHT)
    assert results[1].model.predict(np.zeros((1, 6), np.float32))


@pytest.mark.parametrize("action", ["stop", "cancel"])
def test_one_control_is_for_all(action: str) -> None:
    results, trial_events = together(seeds(spec(MLP)), vectors(), control=StopAt(5, action))
    outcome = {"stop": "finished", "cancel": "cancelled"}[action]
    assert [result.outcome for result in results] == [outcome] * 3
    assert max((event["step"] for _, event in trial_events if event["type"] == "metrics"), default=0) <= 6
    assert [result.model is None for result in results] == [action == "cancel"] * 3


@pytest.mark.parametrize("optimizer", [{"kind": "adam", "eps": 1e-4}, OPTIMIZERS[1]], ids=lambda one: one["kind"])
def test_a_paused_trial_goes_on_alone(optimizer: Document, tmp_path: Path) -> None:
    """Its checkpoint is a run's own: optimizer, dropout's generator, rules and all."""
    document = spec(
        {**MLP, "dropout": 0.3},
        optimizer=optimizer,
        schedule={"kind": "cosine"},
        regularize={"weight_decay": 0.1},
        early_stop=[{"kind": "patience", "patience": 9}],
    )
    documents = seeds(document)
    paused, trial_events = together(documents, vectors(), control=StopAt(9, "pause"), workdir=tmp_path)
    for k, (document, result) in enumerate(zip(documents, paused, strict=True)):
        assert (result.outcome, result.model) == ("paused", None)
        (checkpoint,) = [event for trial, event in trial_events if trial == k and event["type"] == "checkpoint"]
        assert checkpoint["exact"] is False
        events: list[dict[str, Any]] = []
        resumed = tk.fit(
            document, vectors(), resume_from=result.checkpoint, runtime=result.runtime, on_event=events.append
        )
        assert rows(resumed.history) == pytest.approx(rows(tk.fit(document, vectors()).history), **TIGHT)
        (event,) = [event for event in events if event["type"] == "resumed"]
        assert (event["step"], event["exact"]) == (checkpoint["step"], False)
        assert "as one model" in event["reason"]


def test_artifacts_and_plots_are_each_trials_own(tmp_path: Path) -> None:
    results, trial_events = together(seeds(spec(MLP), 2), vectors(), workdir=tmp_path)
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    for k, result in enumerate(results):
        (finished,) = [event for trial, event in trial_events if trial == k and event["type"] == "finished"]
        assert Path(finished["artifact"]).is_relative_to(tmp_path / f"trial-{k}")
        assert all(Path(file).is_file() for file in finished["files"].values())
        loaded = tk.load_model(finished["artifact"])
        np.testing.assert_array_equal(loaded.outputs(x), result.model.outputs(x))
        storages = {parameter.untyped_storage().size() for parameter in result.model.network.parameters()}
        assert max(storages) <= 12 * 8 * 4, "no model holds on to the storage of all"


def test_what_is_too_slow_together_goes_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calibration is a real one; its answer is turned round, so that both ways are seen on any machine."""
    seen: list[Calibration] = []
    documents = seeds(spec({**MLP, "dropout": 0.3}), 2)
    for worth_it in (True, False):
        monkeypatch.setattr(
            Calibration, "worth_it", property(lambda self, answer=worth_it: seen.append(self) or answer)
        )
        trial_events: TrialEvents = []
        results = fit_batch(
            documents, vectors(), on_event=lambda k, e, trial_events=trial_events: trial_events.append((k, e))
        )
        resolved = [event for _, event in trial_events if event["type"] == "runtime"]
        assert [event["batched"] for event in resolved] == [worth_it] * 2
        assert resolved[0]["calibration"]["gain"] > 0
        assert resolved[0]["calibration"]["loop_seconds"] == seen[-1].loop_seconds > 0
        for document, result in zip(documents, results, strict=True):
            alone = rows(tk.fit(document, vectors()).history)
            if worth_it:
                assert rows(result.history) == pytest.approx(alone, **TIGHT)
            else:
                assert rows(result.history) == alone, "the loop's own bits"
                assert "as fast" in result.runtime["why_not"]


def test_what_cannot_be_one_goes_one_by_one_and_says_why() -> None:
    documents = [spec({"kind": "lstm", "hidden": 4}), spec({"kind": "lstm", "hidden": 4}, train={"seed": 1})]
    results = fit_batch(documents, sequences())
    assert [result.runtime["batched"] for result in results] == [False, False]
    assert "lstm trains alone" in results[0].runtime["why_not"]
    assert rows(results[1].history) == rows(tk.fit(documents[1], sequences()).history)
    with pytest.raises(ValueError, match="lstm trains alone"):
        fit_batch(documents, sequences(), when="always")
    assert fit_batch([spec(MLP)], vectors())[0].runtime["why_not"] == "it is the only one"
    never = fit_batch([spec(MLP)], vectors(), when="never")
    assert never[0].runtime["why_not"] == "batching is off"


def test_networks_of_different_shapes_go_one_by_one() -> None:
    """Each trial's preprocessing is fitted on its own training part: components by variance may differ in number."""
    x = np.random.default_rng(0).normal(size=(60, 30)).astype(np.float32)
    data = Dataset.from_arrays(x, np.arange(60) % 3)
    documents = seeds(spec(MLP, preprocess=[{"kind": "pca", "components": 0.9}]), 6)
    results = fit_batch(documents, data)
    shapes = {result.model.network.body.block_1.linear.in_features for result in results}
    assert len(shapes) > 1, "the case is the one meant"
    assert "different shapes" in results[0].runtime["why_not"]


def test_a_trial_that_cannot_begin_leaves_the_others_alone() -> None:
    unknown, unmeasured = spec(MLP, unknown=1), spec(MLP, train={"monitor": "val_mse"})
    results, trial_events = together([unknown, spec(MLP), unmeasured], vectors())
    assert results[1].stop_reason == "completed"
    for k in (0, 2):
        assert isinstance(results[k], tk.SpecError)
        assert [event["type"] for trial, event in trial_events if trial == k] == ["failed"]
    with pytest.raises(ValueError, match="trial 2, /train/batch_size"):
        together([unknown, spec(MLP), spec(MLP, train={"batch_size": 5})], vectors())


def test_the_models_are_plain_networks_afterwards() -> None:
    results, _ = together(seeds(spec(MLP), 2), vectors())
    first, second = (result.model.network for result in results)
    before = {name: tensor.clone() for name, tensor in second.state_dict().items()}
    loss = nn.functional.cross_entropy(first(torch.randn(4, 6)), torch.zeros(4, dtype=torch.int64))
    assert all(parameter.grad is None for parameter in first.parameters())
    loss.backward()
    torch.optim.SGD(first.parameters(), 0.1).step()
    for name, tensor in second.state_dict().items():
        assert torch.equal(tensor, before[name]), "they share nothing"
