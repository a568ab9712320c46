"""Heuristics: valid changes in the right order."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.diagnosis_records import facts, record, table
from trainkit.diagnose.heuristics import DIVERGED, FIRST_CHOICES, OVERTRAINED, UNFINISHED, RunView, suggest
from trainkit.spec import DatasetFacts, resolve
from trainkit.spec.patch import merge_patch

SEQUENCES = DatasetFacts.model_validate(
    {
        "kind": "sequences",
        "samples": 100,
        "input_shape": (29, 12),
        "target_type": "class",
        "classes": {"a": 50, "b": 50},
    }
)
FORMS: dict[str, tuple[DatasetFacts, dict[str, Any]]] = {
    "images": (facts(), {"kind": "cnn"}),
    "residual": (facts(input_shape=(1, 32, 32)), {"kind": "residual_cnn"}),
    "pixels": (facts(), {"kind": "mlp"}),
    "table": (table(), {"kind": "mlp"}),
    "linear": (table(), {"kind": "linear"}),
    "sequences": (SEQUENCES, {"kind": "lstm"}),
}


def view(form: str = "pixels", best_position: float | None = 1.0, **spec: Any) -> RunView:
    about, model = FORMS[form]
    return RunView(record({"model": model, **spec}, about), best_position)


def patches(at: RunView) -> dict[str, dict[str, Any]]:
    return {name: change.patch for name, change in suggest(at)}


@pytest.mark.parametrize("best_position", [1.0, 0.3, None])
@pytest.mark.parametrize("form", FORMS)
def test_suggest_yields_valid_changes(form: str, best_position: float | None) -> None:
    at = view(form, best_position, preprocess=[])
    changes = list(suggest(at))
    assert len(changes) >= 2
    document = dict(at.record.document or {})
    for _, change in changes:
        changed = merge_patch(document, change.patch)
        assert resolve(changed, at.record.facts).spec != resolve(document, at.record.facts).spec
        assert all((change.why, *change.expected))


def test_suggest_order_depends_on_the_best_evaluation() -> None:
    late, early, broken = (list(patches(view(best_position=best_position))) for best_position in (1.0, 0.4, None))
    assert late[:3] == ["z_score", "more_epochs_with_cosine", "higher_learning_rate"]
    assert early[:3] == ["z_score", "shift_and_rotate", "dropout"]
    assert broken == ["z_score", "lower_learning_rate", "batch_norm", "narrower"]


def test_orders_hold_no_heuristic_twice() -> None:
    for order in ((*FIRST_CHOICES, *UNFINISHED), (*FIRST_CHOICES, *OVERTRAINED), DIVERGED):
        assert len(set(order)) == len(order)


def test_more_epochs_gives_at_least_a_thousand_updates() -> None:
    # 2000 pictures: 1600 train, 25 updates an epoch, 500 in 20 epochs; a tenth of them: 50
    assert patches(view())["more_epochs_with_cosine"]["train"] == {"epochs": 40}
    assert patches(view(split={"subsample": 0.1}))["more_epochs_with_cosine"]["train"] == {"epochs": 100}
    assert patches(view(train={"epochs": 500}))["more_epochs_with_cosine"]["train"] == {"epochs": 1000}
    assert patches(view())["more_epochs_with_cosine"]["schedule"] == {"kind": "cosine", "warmup_epochs": 1.0}
    falling = patches(view(schedule={"kind": "cosine"}))
    assert "more_epochs_with_cosine" not in falling
    assert falling["more_epochs"] == {"train": {"epochs": 40}}


def test_smaller_batches_give_about_twenty_updates_per_epoch() -> None:
    assert "smaller_batches" not in patches(view())
    assert patches(view(train={"batch_size": 256}))["smaller_batches"] == {"train": {"batch_size": 64}}
    assert patches(view("sequences"))["smaller_batches"] == {"train": {"batch_size": 16}}


def test_weight_decay_has_a_time_constant_of_two_runs() -> None:
    # 1 / (2 x 1e-3 x 500 updates) = 1
    assert patches(view())["weight_decay"] == {"regularize": {"weight_decay": 1.0}}
    assert patches(view(train={"epochs": 200}))["weight_decay"] == {"regularize": {"weight_decay": 0.1}}
    assert "weight_decay" not in patches(view(regularize={"weight_decay": 0.1}))
    assert "weight_decay" not in patches(view(optimizer={"kind": "sgd"}))


def test_flatten_head_for_small_maps_and_deeper_for_large_ones() -> None:
    # 8 x 8 pictures: two blocks leave 2 x 2; 32 x 32 through two residual stages: 16 x 16
    assert patches(view("images"))["flatten_head"]["model"] == {"kind": "cnn", "head": "flatten"}
    assert "deeper" not in patches(view("images"))
    assert "flatten_head" not in patches(view("residual"))
    assert patches(view("residual"))["deeper"]["model"]["channels"] == [32, 64, 128]


def test_bidirectional_for_sequence_classification_only() -> None:
    assert patches(view("sequences"))["bidirectional"]["model"] == {
        "kind": "lstm",
        "bidirectional": True,
        "pooling": "mean",
    }
    assert "bidirectional" not in patches(view("pixels"))


def test_suggest_keeps_the_architecture_of_given_weights() -> None:
    given = patches(view("images", start_from={"job": "job_1"}))
    assert not {"flatten_head", "deeper", "wider", "batch_norm"} & set(given)
    assert {"more_epochs_with_cosine", "higher_learning_rate", "shift_and_rotate"} <= set(given)
