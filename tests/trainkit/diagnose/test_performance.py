"""Honest verdicts: healthy, inconclusive and suspects, by what is attainable and by what the record could have shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.diagnosis_records import RISING, STUCK, facts, falling, found, record, table, well
from trainkit.diagnose import diagnosis as diagnosis_module
from trainkit.diagnose.attainable import Attainable
from trainkit.diagnose.calibration import OF_VERDICTS, PlattScaling
from trainkit.diagnose.causes import CAUSES
from trainkit.diagnose.diagnosis import NAMED, Diagnosis, diagnose, examine
from trainkit.diagnose.performance import attainment, performance
from trainkit.diagnose.record import Record


def reference(value: float, half: float, metric: str = "accuracy", **row: Any) -> Attainable:
    """A reference model with that metric and half-width of its interval."""
    fields: dict[str, Any] = dict.fromkeys(("samples", "train_samples", "train_share", "seconds", "limit_seconds"), 0)
    rows = ({"name": "gradient boosting", "value": value, **row},)
    return Attainable(
        metric=metric, value=value, low=value - half, high=value + half, reference="gradient boosting",
        references=rows, complete=True, key="k", **fields,
    )  # fmt: skip


def knowing(one: Record, attainable: Attainable) -> Record:
    return replace(one, attainable=attainable)


def suspects(diagnosis: Diagnosis) -> dict[str, float]:
    return {one.code: one.suspicion for one in diagnosis.suspects}


def test_standing_by_hand() -> None:
    run = record(**well(val_accuracy=[0.8] * 12))  # 200 validation samples, 10 even classes
    reached = performance(run)
    assert reached is not None
    assert (reached.value, reached.chance, reached.samples) == (0.8, 0.1, 200)
    assert reached.skill == pytest.approx(0.7 / 0.9)
    assert (reached.low, reached.high) == pytest.approx((0.7391, 0.8496), abs=1e-4)  # Wilson
    assert attainment(run) == "close"
    assert attainment(record(**well(val_accuracy=[0.7] * 12))) == "unknown"
    assert attainment(knowing(run, reference(0.95, 0.03))) == "short"
    assert attainment(knowing(run, reference(0.85, 0.06))) == "close"
    assert attainment(knowing(run, reference(0.85, 0.3))) == "unclear"
    assert attainment(knowing(run, reference(0.1, 0.02))) == "unclear", (
        "a reference no better than chance tells nothing"
    )
    # 0.9 of what is attainable beyond chance is close, however narrow the interval
    assert attainment(knowing(run, reference(0.87, 0.001))) == "close"
    share = performance(knowing(run, reference(0.95, 0.03)))
    assert share is not None
    assert share.share == pytest.approx(0.7 / 0.85)
    assert attainment(record(state="queued")) == "unknown"


def test_standing_of_a_regression() -> None:
    run = record(about=table(), **{**well(), "val_r2": [0.3] * 12, "val_r2_se": [0.02] * 12})
    assert attainment(run) == "unknown"
    assert attainment(knowing(run, reference(0.8, 0.05, "r2"))) == "short"
    assert attainment(knowing(run, reference(0.31, 0.04, "r2"))) == "close"
    # a metric that the reference does not have cannot be compared
    assert attainment(knowing(run, reference(0.8, 0.05, "accuracy"))) == "unknown"


def test_healthy_only_where_close_to_what_is_attainable() -> None:
    middling = record(**well(train_loss=falling(2.0, 0.9), val_loss=falling(2.0, 0.95), val_accuracy=[0.7] * 12))
    unknown = diagnose(middling)
    assert unknown.verdicts[0].code == "inconclusive"
    assert unknown.suspects
    better = diagnose(knowing(middling, reference(0.95, 0.02)))
    assert better.verdicts[0].code == "inconclusive"
    assert "gradient boosting reaches 0.95" in better.verdicts[0].message
    assert suspects(better)["underfitting_model_bias"] > 0
    # recommendations answer the suspects
    assert {one.code for one in better.recommendations} <= set(suspects(better))
    assert better.recommendations
    good = record(**well(val_accuracy=[0.95] * 12))
    assert diagnose(knowing(good, reference(0.95, 0.02))).verdicts[0].code == "healthy"


def test_few_validation_samples_are_never_healthy() -> None:
    small = facts(samples=150, classes={str(k): 15 for k in range(10)})
    run = record(about=small, **well(train_accuracy=[1.0] * 12, val_accuracy=[1.0] * 12))
    assert run.parts[1] == 15
    first = diagnose(run)
    assert first.verdicts[0].code != "healthy"
    assert "validation_too_small" in {first.verdicts[0].code, *suspects(first)}
    assert diagnose(knowing(run, reference(0.95, 0.2))).verdicts[0].code != "healthy"


def test_few_evaluations_are_never_healthy() -> None:
    short = {name: value[:3] if isinstance(value, list) else value for name, value in well().items()}
    one = diagnose(record(**{**short, "val_accuracy": [0.95] * 3}))
    assert one.verdicts[0].code in ("inconclusive", "stopped_too_early")


LARGE_STEPS = {"optimizer": {"kind": "sgd", "lr": 0.5}}


def low_signal(**changes: Any) -> Record:
    """A table of which half of the rest is noise: long steps, rises, and hardly any skill."""
    losses = [0.98, 0.94, 0.97, 0.93, 0.96, 0.92, 0.96, 0.93, 0.97, 0.92, 0.95, 0.93]
    given = {
        **well(train_loss=losses, val_loss=[0.95] * 12, train_lr=[0.5] * 12, train_grad_norm=[4.0] * 12),
        "val_r2": [0.05] * 12, "val_r2_se": [0.03] * 12, "val_mse": [0.95] * 12, "train_mse": losses,
    }  # fmt: skip
    return record(LARGE_STEPS, table(samples=20_000), **given, **changes)


def test_the_rate_is_not_blamed_where_no_reference_does_better() -> None:
    run = low_signal()
    assert examine(run).evidence[0].code == "learning_rate_too_high", "the steps are long, and nothing else is known"
    alike = diagnose(knowing(run, reference(0.06, 0.02, "r2")))
    assert alike.verdicts[0].code in ("healthy", "inconclusive")
    assert suspects(alike).get("learning_rate_too_high", 0.0) < NAMED
    assert examine(knowing(run, reference(0.7, 0.03, "r2"))).evidence[0].code == "learning_rate_too_high"


def test_an_unusual_rate_alone_is_no_evidence() -> None:
    fast = record(
        {"optimizer": {"kind": "adam", "lr": 0.05}}, **well(train_lr=[0.05] * 12, train_weight_norm=[400.0] * 12)
    )
    assert CAUSES["learning_rate_too_high"].evidence(fast) is None
    assert CAUSES["learning_rate_too_high"].suspicion(fast) > 0.3


def test_memorising_is_no_verdict_where_the_kept_weights_are_good() -> None:
    run = record(**well(val_loss=RISING, val_accuracy=[0.88] * 12))
    assert diagnose(run).verdicts[0].code == "overfitting"
    assert diagnose(knowing(run, reference(0.99, 0.02))).verdicts[0].code == "overfitting"
    little = record(**well(val_loss=[min(value, 1.1) for value in RISING], val_accuracy=[0.88] * 12))
    assert diagnose(little).verdicts[0].code == "overfitting"
    good = diagnose(knowing(little, reference(0.88, 0.03)))
    assert good.verdicts[0].code == "inconclusive"
    assert "overfitting" in suspects(good)
    # a loss that nearly doubles is worth the word: more epochs do harm
    assert diagnose(knowing(run, reference(0.88, 0.03))).verdicts[0].code == "overfitting"


def test_copies_are_blamed_where_they_inflate_the_metric() -> None:
    copies = found(("duplicates", "600 samples are exact duplicates of others"))
    alike = diagnose(record(**well(train_accuracy=[0.93] * 12, val_accuracy=[0.93] * 12), **copies))
    assert alike.verdicts[0].code == "healthy"
    assert suspects(alike)["leakage"] == 0.2
    ahead = record(**well(train_accuracy=[1.0] * 12, val_accuracy=[0.93] * 12), **copies)
    verdict = diagnose(ahead).verdicts[0]
    assert verdict.code == "leakage"
    # v = s t + (1 - s) u: u = (0.93 - 0.3) / 0.7 = 0.9
    assert verdict.evidence["inflation"] == pytest.approx(0.03)


def missing(counts: dict[str, int], never: int) -> dict[str, Any]:
    """An evaluation in which the last `never` classes are never predicted."""
    names = list(counts)
    matrix = [[counts[a] // 10 if a == b else 0 for b in names] for a in names]
    for row in matrix[len(names) - never :]:
        row[0], row[:] = max(1, sum(row)), [max(1, sum(row)), *[0] * (len(names) - 1)]
    return {"evaluation": {"split": "test", "classes": names, "confusion_matrix": matrix, "per_class": []}}


def test_class_that_is_never_predicted() -> None:
    rare = {"a": 1200, "b": 780, "c": 12, "d": 8}
    run = record(about=facts(classes=rare), **well(val_accuracy=[0.98] * 12), **missing(rare, 2))
    verdict = diagnose(run).verdicts[0]
    assert (verdict.code, verdict.evidence["never_predicted"]) == ("class_imbalance", ["c", "d"])
    # nine of ten even classes are never predicted where nothing is learnt
    even = {str(k): 200 for k in range(10)}
    assert CAUSES["class_imbalance"].evidence(record(**well(**STUCK), **missing(even, 9))) is None
    # of sizes 2 to 1 it counts where a reference can tell the class
    uneven = {"a": 1400, "b": 600}
    other = record(about=facts(classes=uneven), **well(val_recall=[0.5] * 12), **missing(uneven, 1))
    hint = CAUSES["class_imbalance"].evidence(other)
    known = CAUSES["class_imbalance"].evidence(knowing(other, reference(0.8, 0.05, recall=0.75)))
    assert hint is not None
    assert hint.confidence < 0.5
    assert known is not None
    assert known.confidence > 0.8


def test_label_noise_puts_overfitting_in_doubt() -> None:
    run = record(**well(val_loss=RISING, val_accuracy=[0.6] * 12))
    run = knowing(run, reference(0.75, 0.05))
    found = examine(run)
    assert found.evidence[0].code == "overfitting"
    assert found.rival("overfitting") >= 0.4
    diagnosis = diagnose(run)
    known = {one.code: one.confidence for one in diagnosis.verdicts} | suspects(diagnosis)
    alone = OF_VERDICTS.probability(found.evidence[0].confidence)
    assert (
        known["overfitting"]
        == OF_VERDICTS.probability(found.evidence[0].confidence, found.rival("overfitting"))
        < alone
    )
    assert "label_noise" in known or known["overfitting"] >= NAMED


def test_weak_evidence_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    run = record(**well(val_loss=RISING, val_accuracy=[0.88] * 12))
    score = examine(run).evidence[0].confidence
    sure, unsure = PlattScaling(2.0, 1.0), PlattScaling(-4.0, 1.0)
    monkeypatch.setattr(diagnosis_module, "OF_VERDICTS", sure)
    named = diagnose(run)
    assert (named.verdicts[0].code, named.verdicts[0].confidence) == ("overfitting", sure.probability(score))
    assert named.verdicts[0].evidence["score"] == score
    monkeypatch.setattr(diagnosis_module, "OF_VERDICTS", unsure)
    moved = diagnose(run)
    assert moved.verdicts[0].code == "inconclusive"
    assert suspects(moved)["overfitting"] == unsure.probability(score)
    assert moved.recommendations, "what the suspects recommend"


def test_a_probability_rises_with_the_score_and_falls_with_its_rival() -> None:
    one = PlattScaling(0.5, 0.8, 2.0)
    assert one.probability(0.5) < one.probability(0.9) < one.probability(1.0) <= 0.98
    assert one.probability(0.9, 0.6) < one.probability(0.9)
    assert PlattScaling(0.0, 1.0).probability(0.7) == 0.7
    assert PlattScaling(0.0, 1.0).probability(1.0) == 0.98


def test_the_probability_of_being_short_by_hand() -> None:
    run = performance(knowing(record(**well(val_accuracy=[0.8] * 12)), reference(0.9, 0.049)))
    assert run is not None
    # d = 0.1, r = 0.8, standard error 0.025: z = (0.1 - 0.016) / 0.025 = 3.36
    assert run.shortfall == pytest.approx(0.99961, abs=1e-5)


def test_every_cause_states_what_it_could_have_seen() -> None:
    bare = record(state="queued", stop_reason=None)
    for code, cause in CAUSES.items():
        assert isinstance(cause.observable(bare), bool), code
        assert 0 <= cause.suspicion(bare) <= 1, code
        assert cause.words.endswith("."), code
    without_norms = {name: value for name, value in well().items() if not name.startswith("train_dead")}
    one = diagnose(record(**without_norms)).verdicts[0]
    assert {"dead_units", "vanishing_gradients"} <= set(one.evidence["could_not_be_seen"])


def test_a_constant_alone_does_not_say_what_is_attainable() -> None:
    """On a busy machine the time may end before any other reference does: the run is not good for being as bad."""
    losses = [2.4744 - 0.0006 * k for k in range(12)]
    series = {"train_loss": losses, "val_loss": losses, "val_loss_se": [0.02] * 12, "train_lr": [1e-6] * 12}
    shares = {"train_accuracy": [0.06] * 12, "val_accuracy": [0.06] * 12, "val_accuracy_se": [0.018] * 12}
    norms = {"train_grad_norm": [1.0] * 12, "train_weight_norm": [12.0] * 12}
    stuck = record({"optimizer": {"kind": "adam", "lr": 1e-6}}, **series, **shares, **norms)
    alone = replace(reference(0.1, 0.04), reference="constant", complete=False)
    named = diagnose(stuck).verdicts[0]
    assert named.code == "learning_rate_too_low"
    assert diagnose(knowing(stuck, alone)).verdicts[0].code == named.code
    assert attainment(knowing(stuck, alone)) == "unknown"
    assert attainment(knowing(stuck, replace(alone, complete=True))) != "unknown"
