"""Gradients summed over micro-batches are those of the whole batch: {B, gradient_accumulation_steps: k} trains as {B k}."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import trainkit as tk
from tests.support.fit_data import images, numbers, sequences, spec, vectors
from tests.support.metric_rows import is_clocked
from trainkit.fit.loop.batches import count_batches
from trainkit.spec import SpecError, parse_spec, resolve
from trainkit.spec.estimate import estimate

SGD = {"kind": "heavy_ball", "lr": 0.1, "momentum": 0.9}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "linear": (vectors(), spec({"kind": "linear"}, optimizer=SGD)),
    "mlp with penalties, clipping and class weights": (
        vectors(121),
        spec(
            {"kind": "mlp", "hidden": [12, 8]},
            optimizer=SGD,
            balance="class_weights",
            regularize={"l1": 0.1, "l2": 2.0, "max_norm": 2.0},
            train={"clip_norm": 0.5, "clip_value": 0.1},
            schedule={"kind": "cosine"},
        ),
    ),
    "mlp with adam": (vectors(), spec({"kind": "mlp", "hidden": [12]}, train={"epochs": 2})),
    "regression": (numbers(), spec({"kind": "mlp", "hidden": [8]}, optimizer=SGD)),
    "cnn with augmentation, mixup and class weights": (
        images(101),
        spec(
            {"kind": "cnn", "channels": [4, 6], "norm": "group"},
            optimizer=SGD,
            balance="class_weights",
            augment=[{"kind": "rotate", "degrees": 10}, {"kind": "mixup", "alpha": 0.4}],
        ),
    ),
    "lstm on unequal lengths": (sequences(), spec({"kind": "lstm", "hidden": 6}, optimizer=SGD)),
}


def cut(document: dict[str, Any], batch_size: int, accumulation_steps: int) -> dict[str, Any]:
    return {
        **document,
        "train": {
            **document["train"],
            "batch_size": batch_size,
            "gradient_accumulation_steps": accumulation_steps,
        },
    }


def rows(result: tk.FitResult) -> dict[tuple[int, str, str], float]:
    values = {(row["step"], row["split"], row["name"]): row["value"] for row in result.history}
    return {key: value for key, value in values.items() if not is_clocked(*key[1:])}


@pytest.mark.parametrize("accumulation_steps", [2, 3, 12])
@pytest.mark.parametrize("case", CASES)
def test_cut_batches_train_as_whole_ones(case: str, accumulation_steps: int) -> None:
    data, document = CASES[case]
    whole = tk.fit(cut(document, 24, 1), data)
    parts = tk.fit(cut(document, 24 // accumulation_steps, accumulation_steps), data)
    for (name, accumulated), reference in zip(
        parts.model.network.named_parameters(), whole.model.network.parameters(), strict=True
    ):
        torch.testing.assert_close(
            accumulated, reference, rtol=2e-3, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    expected = rows(whole)
    assert rows(parts).keys() == expected.keys(), "steps, evaluations and rows are those of whole batches"
    assert rows(parts) == pytest.approx(expected, rel=2e-3, abs=1e-4)


def test_a_step_is_one_update_of_the_whole_batch() -> None:
    """By hand: one epoch of one step, w - 0.5 grad of the mean loss over all rows."""
    data = vectors(60)
    document = spec({"kind": "linear"}, split="1:0:0", optimizer={"kind": "sgd", "lr": 0.5}, early_stop=[])
    document = {**document, "train": {"epochs": 1, "batch_size": 7, "gradient_accumulation_steps": 9, "threads": 1}}
    events: list[dict[str, Any]] = []
    head = tk.fit(document, data, on_event=events.append).model.network.head
    assert max(event["step"] for event in events if event["type"] == "metrics") == 1
    start = tk.fit({**document, "optimizer": {"kind": "sgd", "lr": 1e-30}}, data).model.network.head
    start.requires_grad_(True)
    x, y = torch.from_numpy(data.inputs.values), torch.from_numpy(data.targets)
    nn.functional.cross_entropy(start(x), y).backward()
    for updated, first in zip(head.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(updated, first.detach() - 0.5 * first.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "size", "joins", "count"),
    [(10, 4, False, 3), (9, 4, False, 3), (9, 4, True, 2), (8, 4, True, 2), (1, 4, True, 1), (3, 1, True, 3)],
)
def test_batches_are_counted(samples: int, size: int, joins: bool, count: int) -> None:
    assert count_batches(samples, size, joins=joins) == count


@pytest.mark.parametrize("samples", [33, 37, 41, 45, 49])
def test_batch_norm_never_meets_one_sample_alone(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[int] = []
    inner = nn.BatchNorm1d.forward

    def forward(self: nn.BatchNorm1d, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            met.append(len(x))
        return inner(self, x)

    monkeypatch.setattr(nn.BatchNorm1d, "forward", forward)
    document = spec({"kind": "mlp", "hidden": [5], "norm": "batch"}, split="1:0:0", early_stop=[])
    tk.fit(cut(document, 4, 4), vectors(samples))
    assert min(met) > 1
    assert max(met) <= 5
    assert sum(met) >= 3 * samples


def test_adaptation_refuses_it() -> None:
    data = vectors()
    document = cut(spec({"kind": "mlp"}, adapt={"target_dataset": "ds_2"}), 8, 2)
    with pytest.raises(SpecError) as refused:
        resolve(document, data.facts)
    (problem,) = refused.value.problems
    assert (problem.pointer, problem.code) == ("/train/gradient_accumulation_steps", "not_with_adapt")
    assert problem.hint
    with pytest.raises(SpecError, match="gradient_accumulation_steps"):
        parse_spec(cut(document, 8, 0))


def test_steps_are_counted_whole_and_memory_in_pieces() -> None:
    def cost(batch_size: int, accumulation_steps: int) -> dict[str, Any]:
        document = cut(spec({"kind": "cnn"}), batch_size, accumulation_steps)
        return estimate(resolve(document, images(2000).facts), images(2000).facts)

    whole, parts, small = cost(256, 1), cost(32, 8), cost(32, 1)
    assert parts["steps_per_epoch"] == whole["steps_per_epoch"] < small["steps_per_epoch"]
    assert small["memory_bytes"] < parts["memory_bytes"] < whole["memory_bytes"]
    assert parts["memory_bytes"] - small["memory_bytes"] == (256 - 32) * 64 * 4


def test_more_than_the_data_in_a_step_is_said() -> None:
    events: list[dict[str, Any]] = []
    tk.fit(cut(spec({"kind": "linear"}), 32, 8), vectors(), on_event=events.append)
    assert any(
        e.get("message", "").startswith("/train/gradient_accumulation_steps") for e in events if e["type"] == "log"
    )
