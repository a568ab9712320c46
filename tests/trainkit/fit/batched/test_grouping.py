"""Which runs train as one with the first, by facts alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trainkit.fit.batched.grouping import MOST_RUNS, train_with_first
from trainkit.spec import DatasetFacts, ResolvedSpec, resolve

FACTS = DatasetFacts(kind="arrays", samples=1000, input_shape=(20,), classes={"a": 500, "b": 500}, target_type="class")
CPU = torch.device("cpu")


def resolved(facts: DatasetFacts = FACTS, **fields: Any) -> ResolvedSpec:
    return resolve({"dataset": "ds_1", "model": {"kind": "mlp", "hidden": [64]}, **fields}, facts)


def seeds(count: int, facts: DatasetFacts = FACTS, **fields: Any) -> list[ResolvedSpec]:
    return [resolved(facts, train={"seed": seed}, **fields) for seed in range(count)]


def test_those_of_other_shapes_or_data_are_passed_over() -> None:
    other = [
        resolved(model={"kind": "mlp", "hidden": [128]}),
        resolved(train={"epochs": 40}),
        resolved(preprocess=[{"kind": "z_score"}]),
        resolved(optimizer={"kind": "adam", "lr": 1e-4}, model={"kind": "mlp", "hidden": [64], "init": "zeros"}),
    ]
    assert train_with_first([resolved(), *other], FACTS, CPU) == [0, 2, 4]


def test_no_more_than_so_many_train_as_one() -> None:
    assert train_with_first(seeds(MOST_RUNS + 3), FACTS, CPU) == list(range(MOST_RUNS))


LARGE = FACTS.model_copy(update={"samples": 400_000})


@pytest.mark.parametrize(
    ("specs", "facts", "device"),
    [
        (seeds(1), FACTS, "cpu"),
        (seeds(3), FACTS, "cuda"),
        (seeds(3, model={"kind": "mlp", "hidden": [512, 512]}), FACTS, "cpu"),
        (seeds(3, model={"kind": "mlp", "hidden": [64], "init": {"kind": "pretrained", "job": "job_1"}}), FACTS, "cpu"),
    ],
    ids=["only one", "another device", "long steps", "weights from elsewhere"],
)
def test_the_first_alone(specs: list[ResolvedSpec], facts: DatasetFacts, device: str) -> None:
    assert train_with_first(specs, facts, torch.device(device)) == [0]


def test_their_data_may_hold_only_so_much_together() -> None:
    assert len(train_with_first(seeds(MOST_RUNS, LARGE), LARGE, CPU)) == 256 * 2**20 // (400_000 * 20 * 4 + 2**19)
