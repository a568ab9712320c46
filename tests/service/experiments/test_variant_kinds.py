"""Variants and trials that change a kind begin that section anew."""

from __future__ import annotations

from typing import Any

from service.experiments.strategies import enumerated
from tests.support.api import FACTS
from trainkit.spec import DatasetFacts, parse_spec
from trainkit.spec.experiments import parse_experiment

SPEC: dict[str, Any] = {
    "dataset": "ds_1",
    "model": "mlp",
    "optimizer": {"kind": "adam", "lr": 0.5, "betas": [0.5, 0.9]},
}


def optimizers(**plan: Any) -> list[dict[str, Any]]:
    """The optimizer of every job of the experiment; each job's spec is valid."""
    trials = list(enumerated(parse_experiment({"spec": SPEC, **plan}), DatasetFacts.model_validate(FACTS)))
    assert all(parse_spec(one.document) for one in trials)
    return [one.document["optimizer"] for one in trials]


def test_a_variant_of_another_kind_has_no_field_of_the_old_one() -> None:
    found = optimizers(kind="monte_carlo", draws=2, variants={"plain": {"optimizer": "sgd"}})
    assert found == [SPEC["optimizer"], {"kind": "sgd"}] * 2


def test_a_grid_over_kinds_applies_the_kind_before_the_other_values() -> None:
    found = optimizers(kind="grid", space={"/optimizer/lr": [0.1], "/optimizer/kind": ["adam", "sgd"]})
    assert found == [{"kind": "adam", "lr": 0.1, "betas": [0.5, 0.9]}, {"kind": "sgd", "lr": 0.1}]


def test_a_grid_over_a_section_takes_short_forms() -> None:
    found = optimizers(kind="grid", space={"/optimizer/lr": [0.1], "/optimizer": ["sgd", {"kind": "nadam"}]})
    assert found == [{"kind": "sgd", "lr": 0.1}, {"kind": "nadam", "lr": 0.1}]
