"""The plan of an investigation, and its findings, for results that are made up: skill by change."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support.diagnosis_records import facts, falling, record, table, well
from trainkit.diagnose.attainable import Attainable
from trainkit.diagnose.attribution import Key, likeliest
from trainkit.diagnose.combined import combined
from trainkit.diagnose.findings import SURE, InvestigationFindings, conclude
from trainkit.diagnose.investigation import next_variants, why_not_investigated
from trainkit.diagnose.investigation_history import InvestigationBudget, InvestigationHistory, Variant, VariantResult
from trainkit.diagnose.label_votes import count_votes
from trainkit.diagnose.record import Record
from trainkit.diagnose.sample_scores import MOST_SAMPLES, SampleScores, gain, gain_over_folds
from trainkit.spec import JobSpec, resolve

SAMPLES, CLASSES = 400, 10
JOBS = InvestigationBudget(seconds=None, jobs=40)
Skill = Callable[[Variant], float]


def scores(accuracy: float, seed: int = 0) -> SampleScores:
    """Predictions of 400 samples, right and surer for the easiest ones: the same samples are hard for every run."""
    random = np.random.default_rng(5)
    truth = np.arange(SAMPLES) % CLASSES
    ease = random.random(SAMPLES) + 0.03 * np.random.default_rng(100 + seed).normal(size=SAMPLES)
    right = ease.argsort().argsort() < accuracy * SAMPLES
    predicted = np.where(right, truth, (truth + 1 + random.integers(0, 9, SAMPLES)) % CLASSES)
    sure = np.where(right, 0.9, 0.5) - 0.1 * random.random(SAMPLES)
    shares = np.repeat((1 - sure[:, None]) / (CLASSES - 1), CLASSES, axis=1)
    shares[np.arange(SAMPLES), predicted] = sure
    return SampleScores.of_classes(np.arange(SAMPLES), truth, shares)


def investigated(
    about: Record, skill: Skill, budget: InvestigationBudget = JOBS, seconds: float = 1.0
) -> tuple[InvestigationFindings, list[VariantResult]]:
    """Run the plan to its end, each variant with the accuracy that `skill` says; below 0 the run diverges."""
    results: list[VariantResult] = []
    while waiting := next_variants(about, results, budget):
        assert len(results) < 60, "the plan does not end"
        variant = waiting[0]
        value = skill(variant)
        error = {"code": "loss_not_finite", "message": "it is not finite"} if value < 0 else None
        results.append(
            VariantResult(
                variant,
                "failed" if error else "succeeded",
                {},
                None if error else scores(value, seed=variant.kind == "confirmation"),
                seconds * variant.share,
                {},
                error,
            )
        )
    return conclude(about, results, budget), results


def by_change(base: float, repairs: Mapping[str, float]) -> Skill:
    """`base` accuracy, or that of the best of the changes in a variant."""

    def accuracy(variant: Variant) -> float:
        names = [*variant.changes, variant.name.removesuffix("-seed").split("@")[0]]
        return max([base, *(repairs[name] for name in names if name in repairs)])

    return accuracy


ABLE = Attainable("accuracy", 0.95, 0.92, 0.97, "gradient boosting", (), 400, 1600, 1.0, 1.0, 20.0, True, "a key")
SLOW = record({"optimizer": {"kind": "adam", "lr": 1e-5}}, **well())


def test_base_comes_first_then_the_likeliest_change() -> None:
    first = next_variants(SLOW, [], JOBS)
    assert [one.name for one in first] == ["base"]
    assert first[0].document == SLOW.document
    _, results = investigated(SLOW, by_change(0.3, {}))
    names = [one.variant.name for one in results]
    assert names[:2] == ["base", "standard_rate"]
    assert "base-seed" in names
    assert len(names) == len(set(names))
    for result in results:
        resolve(result.variant.document, SLOW.facts)  # every variant is a valid spec


@pytest.mark.parametrize(
    ("spec", "repairs", "code"),
    [
        ({"optimizer": {"kind": "adam", "lr": 1e-5}}, {"standard_rate": 0.9}, "learning_rate_too_low"),
        ({"optimizer": {"kind": "adam", "lr": 0.5}}, {"standard_rate": 0.9}, "learning_rate_too_high"),
        ({"optimizer": {"kind": "adam", "lr": 2e-3}}, {"rate_tenth": 0.9}, "learning_rate_too_high"),
        ({}, {"longer": 0.9, "rate_tenfold": 0.6}, "stopped_too_early"),
        ({"model": {"kind": "mlp", "hidden": [2]}}, {"wider": 0.9, "longer": 0.4}, "underfitting_model_bias"),
        ({"regularize": {"l2": 300.0}}, {"no_penalties": 0.9}, "underfitting_model_bias"),
        (
            {"model": {"kind": "mlp", "hidden": [32] * 8, "activation": "sigmoid"}},
            {"relu": 0.9, "batch_norm": 0.85, "fewer_layers": 0.9},
            "vanishing_gradients",
        ),
        (
            {"model": {"kind": "mlp", "init": {"kind": "zeros"}}},
            {"standard_init": 0.9},
            "symmetric_initialization",
        ),
        (
            {"model": {"kind": "mlp", "init": {"kind": "normal", "std": 2.0}}},
            {"standard_init": 0.9, "batch_norm": 0.8},
            "exploding_gradients",
        ),
        ({"loss": {"kind": "mse"}}, {"cross_entropy": 0.9}, "wrong_loss"),
        ({}, {"regularisation": 0.9, "dropout": 0.9}, "overfitting"),
    ],
)
def test_cause_is_what_repairs_the_run(spec: dict[str, Any], repairs: dict[str, float], code: str) -> None:
    findings, _ = investigated(record(spec, **well()), by_change(0.3, repairs))
    assert findings.verdicts[0].code == code
    assert findings.verdicts[0].confidence > 0.5
    best = findings.recommendations[0]
    assert best.code == code
    assert best.measured["variant"] in repairs
    assert best.measured["low"] > 0
    assert best.measured["confirmed"]
    json.dumps(findings.as_dict())


def test_nothing_helps_is_an_answer() -> None:
    findings, _ = investigated(record(**well()), by_change(0.85, {}))
    assert [one.code for one in findings.verdicts] == ["healthy"]
    assert findings.recommendations == []
    assert findings.verdicts[0].confidence > 0.7


def test_sound_run_may_gain_a_little_by_more_effort() -> None:
    little = {"longer": 0.88, "wider": 0.87, "rate_tenfold": 0.87}
    findings, _ = investigated(record(**well()), by_change(0.85, little))
    assert findings.verdicts[0].code == "healthy"


def test_changes_that_hurt_are_listed_as_such() -> None:
    findings, _ = investigated(record(**well()), lambda one: 0.5 if "rate_tenth" in one.changes else 0.85)
    assert [one.measured["variant"] for one in findings.harmful] == ["rate_tenth"]
    assert findings.harmful[0].measured["high"] < 0
    assert all(one.measured["variant"] != "rate_tenth" for one in findings.recommendations)


def test_run_that_left_no_model_is_repaired_by_one_that_does() -> None:
    too_high = record({"optimizer": {"kind": "sgd", "lr": 50.0}}, ended="diverged", train_loss=[float("nan")] * 2)
    findings, _ = investigated(too_high, lambda one: 0.9 if "standard_rate" in one.changes else -1.0)
    assert findings.verdicts[0].code == "learning_rate_too_high"
    assert findings.recommendations[0].measured["before"] is None


def unstable(one: Variant) -> float:
    """A run that differs from seed to seed, and is on the average worse than with a smaller rate."""
    seeds = {"base": 0.88, "base-seed": 0.62, "base-seed-2": 0.8, "base-seed-3": 0.55, "base-seed-4": 0.7}
    return 0.9 if set(one.changes) & {"standard_rate", "rate_tenth"} else seeds.get(one.name, 0.7)


def test_folds_are_trained_while_they_may_decide() -> None:
    findings, results = investigated(record({"optimizer": {"kind": "adam", "lr": 0.03}}, **well()), unstable)
    folds = [one.variant for one in results if one.variant.kind == "folds"]
    assert {one.changes for one in folds} == {(), ("rate_tenth",)}
    assert [one.document["split"]["fold"] for one in folds if not one.changes] == [0, 1, 2]
    assert len({one.document.get("train", {}).get("seed") for one in folds}) == 3, "each fold has a seed of its own"
    assert findings.verdicts[0].code == "learning_rate_too_high"
    measured = findings.recommendations[0].measured
    assert measured["confirmed"]
    assert (measured["samples"], measured["variant"]) == (3 * SAMPLES, "rate_tenth")
    assert measured["after"] < measured["before"]  # losses, of the folds


def test_seeds_are_trained_where_samples_cannot_be_cut_into_folds() -> None:
    """Windows of a series are cut by time."""
    spec = {"task": "forecasting", "model": {"kind": "lstm"}, "optimizer": {"kind": "adam", "lr": 0.03}}
    about = record(spec, table(), **well())
    truth = np.random.default_rng(0).normal(size=SAMPLES)
    results: list[VariantResult] = []
    while waiting := next_variants(about, results, JOBS):
        one, error = waiting[0], 1 - unstable(waiting[0])
        noise = np.random.default_rng([7, len(results)]).normal(size=SAMPLES)
        numbers = SampleScores.of_numbers(np.arange(SAMPLES), truth, truth + error * noise)
        results.append(VariantResult(one, "succeeded", {}, numbers, 1.0))
    assert {one.variant.kind for one in results} >= {"base", "change", "confirmation"}
    assert not [one for one in results if one.variant.kind == "folds"]
    assert any(one.variant.name.endswith("-seed-2") for one in results)


def test_decided_investigation_trains_no_more_folds() -> None:
    _, results = investigated(SLOW, by_change(0.3, {"standard_rate": 0.9, "rate_tenfold": 0.85}))
    assert not [one.variant.name for one in results if one.variant.kind == "folds"]


def test_what_little_a_good_run_lacks_is_measured_by_what_it_lacks() -> None:
    """From an accuracy of 0.955 to 0.985 is most of what there is to gain; from 0.7 the same gain is little."""
    spec = {"optimizer": {"kind": "adam", "lr": 0.03}}
    good, _ = investigated(record(spec, **well()), by_change(0.955, {"standard_rate": 0.985}))
    assert good.verdicts[0].code == "learning_rate_too_high"
    fair, _ = investigated(record(spec, **well()), by_change(0.7, {"standard_rate": 0.73}))
    assert fair.verdicts[0].code != "learning_rate_too_high"


def test_causes_that_one_repair_answers_do_not_take_each_others_probability() -> None:
    """Two causes by an unusual initialisation, each less likely than a third by itself, are likelier together."""
    posterior: dict[Key, float] = {"overfitting": 0.39, "saturated_activations": 0.33, "exploding_gradients": 0.26}
    group = frozenset({"saturated_activations", "exploding_gradients"})

    def tested(helped: bool, undoes: bool) -> Any:
        return SimpleNamespace(helped=helped, change=SimpleNamespace(undoes=undoes, targeted=group))

    assert likeliest(posterior, [tested(True, True)]) == "saturated_activations"
    assert likeliest(posterior, [tested(False, True)]) == "overfitting"
    assert likeliest(posterior, [tested(True, False)]) == "overfitting"


def test_of_two_likely_causes_it_is_the_one_that_was_mended() -> None:
    def named(mended: float) -> Key:
        posterior: dict[Key, float] = {"stopped_too_early": 0.54, "underfitting_model_bias": mended}
        change = SimpleNamespace(undoes=True, targeted=frozenset({"underfitting_model_bias"}))
        tested: Any = [SimpleNamespace(helped=True, change=change)]
        return likeliest(posterior, tested)

    assert (named(0.43), named(0.3)) == ("underfitting_model_bias", "stopped_too_early")


def test_small_gain_of_regularisation_is_no_fault() -> None:
    findings, _ = investigated(record(**well()), by_change(0.8, {"regularisation": 0.83}))
    assert findings.verdicts[0].code in ("healthy", "inconclusive")


def test_two_faults_that_only_changed_together_give_a_model() -> None:
    spec = {"optimizer": {"kind": "adam", "lr": 1e-6}, "model": {"kind": "mlp", "init": {"kind": "zeros"}}}
    both = {"standard_rate", "standard_init"}
    findings, results = investigated(record(spec, **well()), lambda one: 0.9 if both <= set(one.changes) else 0.1)
    assert {one.code for one in findings.verdicts} == {"learning_rate_too_low", "symmetric_initialization"}
    patch = findings.recommendations[0].patch
    assert patch["optimizer"]["lr"] == 1e-3
    assert patch["model"]["init"]["kind"] == "he_normal"
    assert any(result.variant.kind == "combination" for result in results)


def test_second_fault_is_found_beside_the_first() -> None:
    spec = {"optimizer": {"kind": "adam", "lr": 0.3}, "regularize": {"l2": 300.0}}
    repairs = {"standard_rate", "no_penalties"}

    def accuracy(one: Variant) -> float:
        names = repairs & set(one.changes)
        return 0.95 if names == repairs else 0.5 if "standard_rate" in names else 0.1

    findings, _ = investigated(record(spec, **well()), accuracy)
    codes = [one.code for one in findings.verdicts]
    assert set(codes) == {"learning_rate_too_high", "underfitting_model_bias"}
    assert findings.recommendations[0].measured["variant"] == "standard_rate+no_penalties"


def test_two_faults_that_hide_each_other_are_found_in_pairs() -> None:
    """Only one of the two is an unusual setting, so that making these usual does not help either."""
    spec = {"optimizer": {"kind": "adam", "lr": 1e-5}, "regularize": {"l2": 300.0}}
    both = {"rate_tenfold", "no_penalties"}
    findings, _ = investigated(record(spec, **well()), lambda one: 0.9 if both <= set(one.changes) else 0.1)
    assert {one.code for one in findings.verdicts} == {"learning_rate_too_low", "underfitting_model_bias"}
    assert findings.recommendations[0].measured["variant"] in ("rate_tenfold+no_penalties", "no_penalties+rate_tenfold")
    assert not findings.refuted


def copies(inflated: bool) -> tuple[InvestigationFindings, list[VariantResult]]:
    """A run whose data hold copies: without them training has half of the samples, which costs accuracy in any case."""
    seen = {"findings": [{"code": "duplicates", "message": "600 samples are exact duplicates of others", "where": ""}]}
    about = record(**well(train_accuracy=[1.0] * 12, val_accuracy=[0.93] * 12), report=seen)
    accuracy = {"base": 0.93, "base-seed": 0.93, "without_copies": 0.8, "with_copies": 0.88 if inflated else 0.8}
    results: list[VariantResult] = []
    while waiting := next_variants(about, results, JOBS):
        one = waiting[0]
        few = 800.0 if one.name in ("without_copies", "with_copies") else 1600.0
        found = scores(accuracy.get(one.name, 0.93))
        results.append(VariantResult(one, "succeeded", {"train_samples": few}, found, 1.0))
    return conclude(about, results, JOBS), results


def test_copies_are_judged_by_a_control_of_equal_size() -> None:
    inflated, results = copies(inflated=True)
    control = next(result.variant for result in results if result.variant.name == "with_copies")
    assert control.document["split"]["subsample"] == 0.5
    assert inflated.verdicts[0].code == "leakage"
    assert inflated.verdicts[0].evidence["inflation_by_copies"]["low"] > 0
    harmless, _ = copies(inflated=False)
    assert "leakage" not in [one.code for one in harmless.verdicts]
    assert "leakage" in harmless.refuted


def test_what_failed_for_want_of_memory_or_time_says_nothing_of_its_change() -> None:
    results: list[VariantResult] = []
    while waiting := next_variants(SLOW, results, JOBS):
        one = waiting[0]
        failed = one.name == "wider"
        error = {"code": "out_of_memory", "message": "no memory left"} if failed else None
        state = "failed" if failed else "succeeded"
        value = None if failed else scores(0.9 if "standard_rate" in one.changes else 0.3)
        results.append(VariantResult(one, state, {}, value, 1.0, {}, error))
    found = conclude(SLOW, results, JOBS)
    assert found.verdicts[0].code == "learning_rate_too_low"
    assert "wider" in [result.variant.name for result in results]
    assert "wider" not in [one["change"] for one in found.tried]


def test_runs_that_depend_on_their_seed_do_not_make_a_repair() -> None:
    """The base with another seed is as much better as the change: chance explains it."""
    findings, _ = investigated(
        record(**well()),
        lambda one: 0.85 if one.name == "base-seed" else 0.86 if one.changes == ("leaky_relu",) else 0.4,
    )
    assert "dead_units" not in [one.code for one in findings.verdicts]


def test_small_classes_with_a_low_recall_over_folds_are_imbalance_though_weights_do_not_help() -> None:
    """Two classes of 20 samples among eight of 200: one part has four of each, the folds all 40."""
    counts = {str(k): 20 if k in (3, 7) else 200 for k in range(10)}
    about = record(None, facts(samples=1640, classes=counts), **well())
    truth = np.repeat(np.arange(10), list(counts.values()))

    def found(one: Variant, recall: float) -> SampleScores:
        split = one.document.get("split") or {}
        rows = np.arange(1640) % 3 == split["fold"] if "fold" in split else np.arange(1640) % 5 == 0
        index = np.flatnonzero(rows)
        small = np.isin(truth[index], (3, 7))
        right = np.where(small, np.cumsum(small) % 10 < 10 * recall, np.arange(len(index)) % 20 > 0)
        shares = np.full((len(index), 10), 0.02)
        shares[np.arange(len(index)), np.where(right, truth[index], 0)] = 0.82
        return SampleScores.of_classes(index, truth[index], shares)

    def ended(recall: float) -> InvestigationFindings:
        results: list[VariantResult] = []
        while waiting := next_variants(about, results, JOBS):
            results.append(VariantResult(waiting[0], "succeeded", {}, found(waiting[0], recall), 1.0))
        assert [one for one in results if one.variant.kind == "folds"]
        return conclude(about, results, JOBS)

    verdict = ended(0.4).verdicts[0]
    assert verdict.code == "class_imbalance"
    assert verdict.evidence["recall_of_small"] == pytest.approx(0.5, abs=0.15)
    assert "class_imbalance" not in [one.code for one in ended(0.9).verdicts]


def test_loss_that_rises_far_behind_the_kept_weights_is_overfitting() -> None:
    """The record alone cannot tell it from wrong labels; votes that agree with the labels can."""
    rising = [*falling(1.9, 0.5, 6), *np.linspace(0.6, 2.5, 10).tolist()]
    curves = well(
        val_loss=rising,
        train_loss=falling(2.0, 0.0, 16),
        val_loss_rise_se=[0.05] * 16,
        **{name: [value] * 16 for name, value in (("val_loss_se", 0.05), ("val_accuracy_se", 0.02))},
    )
    findings, _ = investigated(record(**curves), by_change(0.85, {}))
    assert findings.verdicts[0].code == "overfitting"


def test_what_was_not_tried_is_recommended_beside_what_was() -> None:
    about = record({"optimizer": {"kind": "adam", "lr": 0.03}}, attainable=ABLE, **well())
    findings = conclude(about, investigated(about, unstable)[1][:6], JOBS)
    assert findings.verdicts[0].code == "inconclusive"
    assert findings.suspects
    shown = combined(about, findings.as_dict())
    tried = {json.dumps(change.patch) for change in InvestigationHistory(about, []).changes}
    suspects = {one["code"] for one in shown["suspects"]}
    assert shown["verdicts"][0]["source"] == "investigation"
    untried = [one for one in shown["recommendations"] if one["measured"] is None]
    assert untried
    assert {one["code"] for one in untried} <= suspects
    assert not tried & {json.dumps(one["patch"]) for one in untried}
    assert combined(about, None)["recommendations"][0]["measured"] is None


def test_more_is_attainable_is_inconclusive() -> None:
    findings, _ = investigated(record(**well(), attainable=ABLE), by_change(0.6, {}))
    assert findings.verdicts[0].code == "inconclusive"
    assert "gradient boosting" in findings.verdicts[0].message
    findings, _ = investigated(record(**well(), attainable=ABLE), by_change(0.95, {}))
    assert findings.verdicts[0].code == "healthy"


def test_plan_follows_from_the_results_alone() -> None:
    skill = by_change(0.3, {"standard_rate": 0.9})
    whole, results = investigated(SLOW, skill)
    again, _ = investigated(SLOW, skill)
    assert json.dumps(again.as_dict()) == json.dumps(whole.as_dict())
    for count in range(0, len(results), 4):
        stored = json.loads(json.dumps([result.as_dict() for result in results[:count]]))
        resumed = next_variants(SLOW, [VariantResult.from_dict(one) for one in stored], JOBS)
        assert resumed[0] == results[count].variant


def test_number_of_runs_is_limited() -> None:
    for jobs in (1, 3, 7):
        findings, results = investigated(SLOW, by_change(0.3, {}), InvestigationBudget(seconds=None, jobs=jobs))
        assert len(results) == jobs
        assert findings.verdicts


def test_seconds_are_limited_and_cheap_rungs_come_first() -> None:
    large = facts(samples=64_000, classes={str(k): 6400 for k in range(10)})
    slow = record({"optimizer": {"kind": "adam", "lr": 1e-5}}, large, **well())
    budget = InvestigationBudget(seconds=60.0)
    findings, results = investigated(slow, by_change(0.3, {"standard_rate": 0.9}), budget, seconds=30.0)
    assert sum(result.seconds for result in results) <= 60
    shares = [result.variant.share for result in results if result.variant.kind == "change"]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]
    first = [r.variant for r in results if r.variant.share == shares[0] and r.variant.kind == "change"]
    later = [r.variant for r in results if r.variant.share == shares[-1] and r.variant.kind == "change"]
    assert len(later) < len(first)
    assert "standard_rate" in {name for one in later for name in one.changes}
    assert first[0].document["split"]["subsample"] == pytest.approx(shares[0])
    assert findings.verdicts[0].code == "learning_rate_too_low"


def test_base_that_cannot_be_trained_ends_the_plan() -> None:
    broken = VariantResult(
        next_variants(SLOW, [], JOBS)[0], "failed", error={"code": "out_of_memory", "message": "no memory left"}
    )
    assert next_variants(SLOW, [broken], JOBS) == []
    assert "no memory left" in conclude(SLOW, [broken], JOBS).message


def test_what_cannot_be_investigated_says_why() -> None:
    without = resolve({"dataset": "ds_1", "model": "mlp", "split": "8:2"}, facts()).spec
    assert "split.validation" in (why_not_investigated(without) or "")
    assert "gradient_boosting" in (why_not_investigated(JobSpec(dataset="d", model="gradient_boosting")) or "")
    assert why_not_investigated(SLOW.spec) is None


def test_same_change_of_several_causes_is_one_run() -> None:
    deep = record({"model": {"kind": "mlp", "hidden": [16] * 8}}, **well())
    changes = InvestigationHistory(deep, []).changes
    assert len({change.name for change in changes}) == len(changes)
    shallow = next(change for change in changes if change.name == "fewer_layers")
    assert shallow.targeted == {"optimization_failure", "vanishing_gradients"}


# Votes on labels


def voted(wrong: float, error: float, easy: bool) -> SampleScores:
    """3000 votes: `wrong` of the labels are drawn anew; the model errs in `error` of them, where it is least sure.

    Half of what it leaves is for its next choice: the true class where it errs, else the class that it confuses with it.
    """
    random = np.random.default_rng(3)
    truth = random.integers(0, 5, 3000)
    sure = np.sort(random.uniform(0.4, 1.0, 3000))[::-1]
    chance = 2 * error * np.arange(3000) / 3000 if easy else np.full(3000, error)
    errs = random.random(3000) < chance
    vote = np.where(errs, (truth + 1) % 5, truth)
    label = np.where(random.random(3000) < wrong, (truth + random.integers(1, 5, 3000)) % 5, truth)
    shares = np.repeat((1 - sure[:, None]) / 6, 5, axis=1)
    shares[np.arange(3000), np.where(errs, truth, (truth + 1) % 5)] = (1 - sure) / 2
    shares[np.arange(3000), vote] = sure
    return SampleScores.of_classes(np.arange(3000), label, shares)


def test_votes_tell_wrong_labels_from_hard_samples() -> None:
    noisy, hard, clean = (count_votes([voted(w, e, True)]) for w, e in ((0.2, 0.05), (0.0, 0.25), (0.0, 0.02)))
    assert noisy is not None
    assert hard is not None
    assert clean is not None
    assert noisy.probability > 0.95
    assert noisy.next_choice is not None
    assert noisy.next_choice < 0.5
    assert hard.next_choice is not None
    assert hard.next_choice > 0.8
    assert noisy.sure_error == pytest.approx(0.2, abs=0.04)
    assert noisy.sure_low < noisy.sure_error < noisy.sure_high
    assert hard.probability < 0.05
    assert clean.probability < 0.05
    assert len(noisy.suspects) == 100


def test_votes_tell_many_wrong_labels_from_samples_that_are_hard_to_a_degree() -> None:
    """Both are wrong half as often where they are sure; with wrong labels it stays so up to the surest, else it falls."""
    noisy, hard = (count_votes([wrong_by_rank(share)]) for share in (lambda r: 0.28, lambda r: 1.4 * (1 - r) + 0.07))
    assert noisy is not None
    assert hard is not None
    assert noisy.sure_error / noisy.error == pytest.approx(hard.sure_error / hard.error, abs=0.08)
    assert noisy.next_choice is hard.next_choice is None, "what the vote leaves is shared out evenly, and says nothing"
    assert noisy.probability > 0.6
    assert hard.probability < 0.2


def wrong_by_rank(share_of_sure: Callable[[float], float]) -> SampleScores:
    """600 votes on six classes: half are wrong, and of the surest 30 % as many as `share_of_sure` says of the rank."""
    n, random = 600, np.random.default_rng(3)
    rank = (np.arange(n) + 1) / n
    share = np.where(rank < 0.7, 0.6, [share_of_sure(one) for one in rank])
    truth, wrong = np.arange(n) % 6, random.random(n) < share
    shares = np.full((n, 6), 0.0)
    shares[np.arange(n), np.where(wrong, (truth + 1) % 6, truth)] = 0.2 + 0.7 * rank
    shares += (1 - shares.sum(1, keepdims=True)) / 6
    return SampleScores.of_classes(np.arange(n), truth, shares)


def calibrated(classes: int, samples: int, size: float, seed: int) -> SampleScores:
    """Votes of a model that knows how sure it may be: labels are drawn from its probabilities."""
    random = np.random.default_rng(seed)
    shares = np.exp(size * random.normal(size=(samples, classes)))
    shares /= shares.sum(1, keepdims=True)
    drawn = (random.random((samples, 1)) > shares.cumsum(1)).sum(1).clip(0, classes - 1)
    return SampleScores.of_classes(np.arange(samples), drawn, shares)


@pytest.mark.parametrize(("classes", "samples"), [(3, 24), (3, 40), (5, 80), (10, 40), (10, 1000), (5, 2000)])
def test_hard_samples_are_seldom_taken_for_wrong_labels(classes: int, samples: int) -> None:
    found = [count_votes([calibrated(classes, samples, 1.5, seed)]) for seed in range(40)]
    assert np.mean([one is not None and one.probability >= SURE for one in found]) <= 0.1
    many = [one.next_choice for one in found if one is not None and one.next_choice is not None]
    if samples >= 1000:
        assert np.mean(many) == pytest.approx(1, abs=0.1)


def test_classes_that_cannot_be_told_apart_are_no_wrong_labels() -> None:
    """Ten classes in pairs that are alike: half of the votes are wrong, however sure, and the label is the next choice."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 10, 2000)
    sure = random.uniform(0.5, 0.6, 2000)
    vote = np.where(random.random(2000) < 0.5, truth, truth ^ 1)
    shares = np.full((2000, 10), 0.001)
    shares[np.arange(2000), vote] = sure
    shares[np.arange(2000), vote ^ 1] = 1 - sure - 0.008
    votes = count_votes([SampleScores.of_classes(np.arange(2000), truth, shares)])
    assert votes is not None
    assert votes.next_choice is not None
    assert votes.next_choice > 0.9
    assert votes.probability <= 0.5


def test_votes_of_few_samples_say_nothing() -> None:
    assert count_votes([]) is None
    assert count_votes([SampleScores.of_classes(np.arange(10), np.zeros(10, np.int64), np.full((10, 2), 0.5))]) is None


# Scores


def test_skill_is_0_for_a_constant_and_1_for_a_perfect_prediction() -> None:
    truth = np.arange(100) % 4
    perfect = SampleScores.of_classes(np.arange(100), truth, np.eye(4)[truth])
    assert perfect.skill == pytest.approx(1)
    assert perfect.constant().skill == pytest.approx(0, abs=1e-6)
    values = np.linspace(0, 1, 50)[:, None]
    numbers = SampleScores.of_numbers(np.arange(50), values, values * 0.9)
    expected = 1 - float(((values * 0.1) ** 2).sum() / ((values - values.mean()) ** 2).sum())
    assert numbers.skill == pytest.approx(expected, abs=1e-5)
    assert numbers.value("val_r2") == pytest.approx(expected, abs=1e-5)
    assert numbers.constant().skill == pytest.approx(0, abs=1e-5)


def test_predictions_that_are_not_finite_count_as_none() -> None:
    truth = np.arange(40) % 2
    broken = SampleScores.of_classes(np.arange(40), truth, np.full((40, 2), np.nan))
    assert broken.skill == pytest.approx(0, abs=1e-6)
    numbers = SampleScores.of_numbers(np.arange(40), np.arange(40.0), np.full(40, np.inf))
    assert numbers.skill == pytest.approx(0, abs=1e-5)


def test_runs_are_compared_on_the_samples_that_both_validate() -> None:
    one, other = scores(0.5), scores(0.8)
    half = np.arange(0, SAMPLES, 2)
    fields = {n: v[half] for n, v in vars(other).items() if isinstance(v, np.ndarray)}
    found = gain("val_accuracy", [one], [SampleScores(**fields)])
    assert found.samples == len(half)
    assert found.gain == pytest.approx(float(other.correct[half].mean() - one.correct[half].mean()))


def test_folds_are_joined_and_their_trainings_widen_the_interval() -> None:
    """Hand-worked: gains of 0.2 and 0.6 on two folds of which the samples explain nothing."""

    def numbers(first: int, errors: Sequence[float]) -> SampleScores:
        index = np.arange(first, first + len(errors))
        truth = np.zeros(len(errors))
        return SampleScores(index, truth, np.array(errors), 1 - np.array(errors), absolute=np.array(errors))

    pairs = [
        (numbers(0, [1.0, 1.0]), numbers(0, [0.8, 0.8])),
        (numbers(2, [1.0, 1.0]), numbers(2, [0.4, 0.4])),
    ]
    found = gain_over_folds("val_loss", [pairs])
    between = 0.08  # the variance of 0.2 and 0.6
    sampling = (4 * 0.2**2 / 3) / 4  # of 0.2, 0.2, 0.6, 0.6 about 0.4, over their number
    assert found.gain == pytest.approx(0.4)
    assert found.se == pytest.approx((sampling + between / 2) ** 0.5)
    assert found.samples == 4
    pooled = gain_over_folds("val_loss", [pairs], spread=0.02)
    assert pooled.se == pytest.approx((sampling + (between + 0.02) / 2 / 2) ** 0.5)
    twice = gain_over_folds("val_loss", [pairs, [pairs[0], pairs[1]]])
    assert twice.se < found.se


def test_large_validation_part_is_drawn_alike_for_every_run() -> None:
    n = 3 * MOST_SAMPLES
    order = np.random.default_rng(0).permutation(n)
    truth = np.arange(n) % 2
    one = SampleScores.of_classes(np.arange(n), truth, np.full((n, 2), 0.5))
    other = SampleScores.of_classes(order, truth[order], np.full((n, 2), 0.5))
    assert len(one.index) == MOST_SAMPLES
    assert np.array_equal(one.index, other.index)
    assert np.array_equal(one.truth, other.truth)
