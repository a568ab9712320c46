"""The generator of cases: the seed alone decides, shares are as promised, and a twin differs only by what is planted."""

from __future__ import annotations

import hashlib
import json
from argparse import ArgumentTypeError
from collections import Counter
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from benchmarks.diagnosis.calibration import SEEDS as CALIBRATION
from benchmarks.diagnosis.case import FAMILIES, STRENGTHS, Case
from benchmarks.diagnosis.command import as_ranges, seeds
from benchmarks.diagnosis.datasets import POOL, samples_of
from benchmarks.diagnosis.faults import FAULTS, fits_together
from benchmarks.diagnosis.generator import FINAL_FROM, case, planted_case, role_of
from benchmarks.diagnosis.planted_data import CaseData, case_data
from trainkit.diagnose.causes import CODES
from trainkit.spec import JobSpec

LOCAL = ("digits", "iris", "wine", "breast_cancer", "diabetes", "overlapping", "weak_linear", "friedman", "clusters")
"""Datasets that scikit-learn carries or makes: no test fetches the others."""


def digest(data: CaseData) -> str:
    """Hash of all values of a dataset and of the samples aside."""
    inputs, found = data.dataset.inputs, hashlib.sha256()
    arrays = [column.values for column in inputs.columns.values()] if hasattr(inputs, "columns") else [inputs.values]
    rows = data.aside_inputs
    aside = [list(row.values()) for row in rows] if isinstance(rows[0], dict) else rows
    parts = [] if data.dataset.split is None else [data.dataset.split]
    for array in [*arrays, data.dataset.targets, *parts, *map(np.asarray, aside), data.aside_targets]:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def values_of(data: CaseData) -> Any:
    return np.asarray(data.dataset.inputs.values)  # type: ignore[union-attr]


def test_the_same_seed_gives_the_same_case_and_data() -> None:
    chosen = [seed for seed in range(200) if case(seed).recipe["dataset"] in LOCAL][:6]
    for seed in chosen:
        assert case(seed) == case(seed)
        assert digest(case_data(case(seed).recipe)) == digest(case_data(case(seed).recipe))
    assert len({digest(case_data(case(seed).recipe)) for seed in chosen}) == len(chosen)


def test_the_first_seeds_are_what_they_were() -> None:
    """A figure is of certain cases: a change of the generator makes other ones, and older figures mean nothing then."""
    cases = [[one.recipe, one.document, one.sound_recipe, one.sound_document] for one in map(case, range(300))]
    assert hashlib.sha256(json.dumps(cases, sort_keys=True).encode()).hexdigest()[:16] == FIRST_300


FIRST_300 = "688c3ce12a3d41fc"


def test_a_tenth_has_two_faults_and_three_tenths_are_sound() -> None:
    for first in (0, 100, 1000):
        roles = Counter(role_of(seed) for seed in range(first, first + 100))
        assert roles == {"one": 60, "two": 10, "sound": 30}


def test_all_kinds_occur_about_equally_often() -> None:
    cases = [case(seed) for seed in range(300)]
    codes = Counter(one.planted[0].code for one in cases if len(one.planted) == 1)
    assert set(codes) == set(FAULTS)
    assert max(codes.values()) - min(codes.values()) <= 1
    families = Counter(one.family for one in cases if not one.planted)
    assert set(families) == set(FAMILIES)
    assert max(families.values()) - min(families.values()) <= 1
    strengths = Counter(one.planted[0].strength for one in cases if len(one.planted) == 1)
    assert set(strengths) == set(STRENGTHS)
    assert strengths["invisible"] < strengths["slight"] < strengths["gross"] + strengths["clear"]
    assert {one.document["model"]["kind"] for one in cases} == {"linear", "mlp", "cnn", "lstm", "gru"}
    assert len({one.recipe["dataset"] for one in cases}) == len(POOL) >= 25


def test_every_code_can_be_planted() -> None:
    assert set(FAULTS) == set(CODES) - {"healthy", "inconclusive"}


@pytest.mark.parametrize("code", sorted(FAULTS))
def test_a_twin_differs_by_the_planted_change_alone(code: str) -> None:
    for number, strength in enumerate(STRENGTHS):
        for seed in range(3):
            one = planted_case(seed, np.random.default_rng([seed, number]), [code], [strength])
            assert [fault.strength for fault in one.planted] == [strength]
            assert changed(one)
            assert any(changed(one) <= allowed for allowed in CHANGED[code])
            assert one.planted[0].document == one.document
            assert one.planted[0].recipe == one.recipe
            for document in (one.document, one.sound_document):
                JobSpec.model_validate(document)


def changed(one: Case) -> set[str]:
    """What differs between a run and its twin: fields of the document, ingredients of the recipe."""
    document, twin = flat(one.document), flat(one.sound_document)
    fields = {name for name in {*document, *twin} if document.get(name) != twin.get(name)}
    recipe = {f"recipe.{n}" for n in {*one.recipe, *one.sound_recipe} if one.recipe.get(n) != one.sound_recipe.get(n)}
    return {name for name in fields | recipe if not name.startswith(("model.", "optimizer.", "split."))} | {
        name.split(".")[0] for name in fields if name.startswith(("model.", "optimizer.", "split."))
    }


def flat(document: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{section}.{name}" if isinstance(value, dict) else section: content
        for section, value in document.items()
        for name, content in (value.items() if isinstance(value, dict) else [("", value)])
    }


CHANGED: dict[str, list[set[str]]] = {
    "overfitting": [{"model", "train.epochs", "regularize.weight_decay", "early_stop", "optimizer"}],
    "underfitting_model_bias": [{"model"}, {"regularize.l2", "regularize.weight_decay"}],
    "learning_rate_too_high": [{"optimizer"}],
    "learning_rate_too_low": [{"optimizer"}],
    "unscaled_inputs": [{"preprocess"}],
    "label_noise": [{"recipe.label_noise"}],
    "class_imbalance": [{"recipe.imbalance"}],
    "distribution_mismatch": [{"recipe.mismatch"}],
    "leakage": [{"recipe.leak"}, {"recipe.copies"}, {"recipe.revealing"}],
    "validation_too_small": [{"split"}],
    "stopped_too_early": [{"train.epochs"}],
    "wrong_loss": [{"loss.kind"}],
    **{
        key: [{"model"}]
        for key in (
            "optimization_failure",
            "vanishing_gradients",
            "exploding_gradients",
            "dead_units",
            "symmetric_initialization",
            "saturated_activations",
        )
    },
}
"""Code -> the sets of which each planted change touches one alone."""


def test_two_faults_are_of_data_and_of_training_and_each_is_known_alone() -> None:
    cases = [one for one in map(case, range(200)) if len(one.planted) == 2]
    assert len(cases) == 20
    for one in cases:
        codes = [fault.code for fault in one.planted]
        assert fits_together(*codes)
        assert [FAULTS[code].of_data for code in codes] == [False, True]
        assert all(fault.strength in ("clear", "gross") for fault in one.planted)
        assert one.planted[0].recipe == one.sound_recipe or FAULTS[codes[0]].of_data
        assert len({str(one.document), str(one.sound_document)}) + len({str(one.recipe), str(one.sound_recipe)}) > 2


def test_a_sound_case_is_its_own_twin() -> None:
    for one in (case(seed) for seed in range(60) if role_of(seed) == "sound"):
        assert (one.recipe, one.document, one.planted) == (one.sound_recipe, one.sound_document, ())


def test_final_seeds_begin_after_those_for_development_and_calibration() -> None:
    assert max(CALIBRATION) < FINAL_FROM
    assert as_ranges(CALIBRATION) == "211:300,1016:1544"


def test_seeds_are_ranges_with_commas() -> None:
    assert seeds("3:5,10:12") == (3, 4, 10, 11)
    assert as_ranges(seeds("3:5,10:12")) == "3:5,10:12"
    with pytest.raises(ArgumentTypeError, match="FIRST:END"):
        seeds("5:3")


BASE = {"dataset": "digits", "seed": 5, "n": 600, "form": "image"}


def test_noise_in_labels_changes_labels_alone_and_not_those_aside() -> None:
    clean, noisy = case_data(BASE), case_data({**BASE, "label_noise": 0.25})
    share = np.mean(clean.dataset.targets != noisy.dataset.targets)
    assert 0.18 < share < 0.32
    assert np.array_equal(values_of(clean), values_of(noisy))
    assert np.array_equal(clean.aside_targets, noisy.aside_targets)


def test_a_thinned_dataset_and_its_twin_have_as_many_samples() -> None:
    plan = {"classes": 3, "ratio": 10.0, "thinned": True}
    thinned, even = (case_data({**BASE, "imbalance": {**plan, "thinned": one}}) for one in (True, False))
    assert len(thinned.dataset.targets) == len(even.dataset.targets) < 600  # type: ignore[arg-type]
    counts = np.bincount(thinned.dataset.targets)  # type: ignore[arg-type]
    assert np.sort(counts)[2] * 8 <= np.median(counts)
    assert np.bincount(even.dataset.targets).min() > 25


def test_a_leak_copies_held_out_samples_into_training_only() -> None:
    plan = {**BASE, "ships_parts": True}
    clean, leaky = case_data(plan), case_data({**plan, "leak": 0.3})
    added = len(leaky.dataset.targets) - len(clean.dataset.targets)  # type: ignore[arg-type]
    held = np.flatnonzero(clean.dataset.split)  # type: ignore[arg-type]
    assert added == round(0.3 * len(held))
    known = {one.tobytes() for one in values_of(clean)[held]}
    assert all(one.tobytes() in known for one in values_of(leaky)[600:])
    assert (leaky.dataset.split[600:] == 0).all()  # type: ignore[index]


def test_a_mismatch_changes_the_field_and_the_shipped_part_alone() -> None:
    plan = {**BASE, "ships_parts": True}
    planted = {"change": "noise", "amount": 1.0, "parts": "test"}
    clean, other = case_data(plan), case_data({**plan, "mismatch": planted})
    same = (values_of(clean) == values_of(other)).reshape(600, -1).all(1)
    assert np.array_equal(same, clean.dataset.split != 2)
    assert not np.array_equal(clean.aside_inputs, other.aside_inputs)


def test_a_revealing_column_predicts_the_target_in_the_run_and_not_aside() -> None:
    plan = {"dataset": "breast_cancer", "seed": 1, "n": 300, "form": "arrays"}
    leaky, clean = case_data({**plan, "revealing": 0.1}), case_data({**plan, "revealing": None})

    def correlation(x: Any, y: Any) -> float:
        return abs(float(np.corrcoef(x[:, -1], y)[0, 1]))

    assert correlation(values_of(leaky), leaky.dataset.targets) > 0.95
    assert correlation(leaky.aside_inputs, leaky.aside_targets) < 0.3
    assert correlation(values_of(clean), clean.dataset.targets) < 0.3
    assert np.array_equal(values_of(leaky)[:, :-1], values_of(clean)[:, :-1])


def test_a_table_and_arrays_hold_the_same_numbers() -> None:
    plan = {"dataset": "wine", "seed": 2, "n": 120, "form": "arrays"}
    arrays, table = case_data(plan), case_data({**plan, "form": "table"})
    columns = table.dataset.inputs.columns  # type: ignore[union-attr]
    stacked = np.column_stack([column.values for name, column in columns.items() if name != "target"])
    assert np.allclose(stacked, values_of(arrays))
    assert np.array_equal(table.dataset.targets, arrays.dataset.targets)  # type: ignore[arg-type]


def test_a_recipe_with_another_ingredient_is_refused() -> None:
    with pytest.raises(ValueError, match="a recipe has no colour"):
        case_data({**BASE, "colour": "red"})


@pytest.mark.parametrize("name", LOCAL)
def test_the_pool_says_what_a_dataset_holds(name: str) -> None:
    x, y = samples_of(name)
    assert len(x) == len(y) == POOL[name].samples
    assert (y.dtype.kind == "f") == (POOL[name].classes == 0)


def test_synthetic_sets_have_the_skill_that_they_promise() -> None:
    x, y = samples_of("overlapping")
    accuracy = LogisticRegression().fit(x[:4000], y[:4000]).score(x[4000:], y[4000:])
    assert abs(accuracy - 0.7257) < 0.02  # the best possible, Phi(0.6)
    x, y = samples_of("weak_linear")
    assert abs(Ridge().fit(x[:4000], y[:4000]).score(x[4000:], y[4000:]) - 0.2) < 0.03
