"""General moves: each is a valid spec of its dataset, and says what it should."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.diagnosis_records import facts, record, table
from trainkit.diagnose.heuristics import BROKEN, FIRST, PAST_ITS_BEST, UNFINISHED, RunView, moves
from trainkit.spec import DatasetFacts, check_spec
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


def sight(form: str = "pixels", place: float | None = 1.0, **spec: Any) -> RunView:
    about, model = FORMS[form]
    return RunView(record({"model": model, **spec}, about), place)


def patches(at: RunView) -> dict[str, dict[str, Any]]:
    return {name: offer.patch for name, offer in moves(at)}


@pytest.mark.parametrize("place", [1.0, 0.3, None])
@pytest.mark.parametrize("form", FORMS)
def test_every_offer_is_a_valid_spec_and_a_change(form: str, place: float | None) -> None:
    at = sight(form, place)
    offers = list(moves(at))
    assert len(offers) >= 2
    document = dict(at.record.document or {})
    for _, offer in offers:
        changed = merge_patch(document, offer.patch)
        assert check_spec(changed, at.record.facts) != check_spec(document, at.record.facts)
        assert all((offer.why, *offer.expected))


def test_the_order_follows_where_the_best_evaluation_lies() -> None:
    late, early, broken = (list(patches(sight(place=place))) for place in (1.0, 0.4, None))
    assert late[:3] == ["scaled", "longer", "faster"]
    assert early[:3] == ["scaled", "moved_pictures", "dropped"]
    assert broken == ["scaled", "slower", "normalised", "narrower"]


def test_no_move_stands_twice_in_an_order() -> None:
    for order in ((*FIRST, *UNFINISHED), (*FIRST, *PAST_ITS_BEST), BROKEN):
        assert len(set(order)) == len(order)


def test_longer_makes_a_thousand_updates_of_few_and_twice_of_many() -> None:
    # 2000 pictures: 1600 train, 25 updates an epoch, 500 in 20 epochs; a tenth of them: 50
    assert patches(sight())["longer"]["train"] == {"epochs": 40}
    assert patches(sight(split={"subsample": 0.1}))["longer"]["train"] == {"epochs": 100}
    assert patches(sight(train={"epochs": 500}))["longer"]["train"] == {"epochs": 1000}
    assert patches(sight())["longer"]["schedule"] == {"kind": "cosine", "warmup_epochs": 1.0}
    falling = patches(sight(schedule={"kind": "cosine"}))
    assert "longer" not in falling
    assert falling["longer_still"] == {"train": {"epochs": 40}}


def test_smaller_batches_make_about_twenty_updates_an_epoch() -> None:
    assert "smaller_batches" not in patches(sight())
    assert patches(sight(train={"batch_size": 256}))["smaller_batches"] == {"train": {"batch_size": 64}}
    assert patches(sight("sequences"))["smaller_batches"] == {"train": {"batch_size": 16}}


def test_decay_forgets_over_two_lengths_of_the_run() -> None:
    # 1 / (2 x 1e-3 x 500 updates) = 1
    assert patches(sight())["decayed"] == {"regularize": {"weight_decay": 1.0}}
    assert patches(sight(train={"epochs": 200}))["decayed"] == {"regularize": {"weight_decay": 0.1}}
    assert "decayed" not in patches(sight(regularize={"weight_decay": 0.1}))
    assert "decayed" not in patches(sight(optimizer={"kind": "sgd"}))


def test_a_small_map_keeps_its_places_and_a_large_one_gets_another_block() -> None:
    # 8 x 8 pictures: two blocks leave 2 x 2; 32 x 32 through two residual stages: 16 x 16
    assert patches(sight("images"))["places_kept"]["model"] == {"kind": "cnn", "head": "flatten"}
    assert "deeper" not in patches(sight("images"))
    assert "places_kept" not in patches(sight("residual"))
    assert patches(sight("residual"))["deeper"]["model"]["channels"] == [32, 64, 128]


def test_sequences_are_read_both_ways_but_not_to_forecast() -> None:
    assert patches(sight("sequences"))["both_ways"]["model"] == {
        "kind": "lstm",
        "bidirectional": True,
        "pooling": "mean",
    }
    assert "both_ways" not in patches(sight("pixels"))


def test_weights_that_are_given_keep_their_architecture() -> None:
    given = patches(sight("images", start_from={"job": "job_1"}))
    assert not {"places_kept", "deeper", "wider", "normalised"} & set(given)
    assert {"longer", "faster", "moved_pictures"} <= set(given)
