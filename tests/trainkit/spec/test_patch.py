"""The difference of two specs is the patch that makes one of the other."""

from __future__ import annotations

from typing import Any

import pytest

from trainkit.spec.patch import difference, full_form, merge_patch

SPECS: list[dict[str, Any]] = [
    {"dataset": "ds_1", "model": "mlp"},
    {"dataset": "ds_1", "model": {"kind": "mlp", "hidden": [8]}, "optimizer": {"kind": "adam", "lr": 0.1}},
    {"dataset": "ds_2", "model": {"kind": "cnn"}, "optimizer": "sgd", "augment": ["noise"], "train": {"epochs": 3}},
    {"dataset": {"id": "ds_1", "target": "y"}, "model": {"kind": "mlp", "init": "he_normal"}, "split": "8:1:1"},
    {
        "dataset": "ds_1",
        "model": {"kind": "mlp", "hidden": [8, 8]},
        "train": {"seed": 1, "epochs": 3},
        "split": {"train": 8},
    },
]


@pytest.mark.parametrize("before", SPECS)
@pytest.mark.parametrize("after", SPECS)
def test_a_difference_makes_one_spec_of_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    patch = difference(before, after)
    assert merge_patch(before, patch) == full_form(after)
    assert (patch == {}) == (full_form(before) == full_form(after))


def test_a_difference_is_as_small_as_a_patch_can_be() -> None:
    before = {"optimizer": {"kind": "adam", "lr": 0.1, "weight_decay": 0.1}, "train": {"epochs": 3}, "name": "a"}
    after = {"optimizer": {"kind": "adam", "lr": 0.2}, "train": {"epochs": 3}}
    assert difference(before, after) == {"optimizer": {"lr": 0.2, "weight_decay": None}, "name": None}
    assert difference({"optimizer": {"kind": "adam", "lr": 1}}, {"optimizer": {"kind": "sgd", "lr": 1}}) == {
        "optimizer": {"kind": "sgd", "lr": 1}
    }
