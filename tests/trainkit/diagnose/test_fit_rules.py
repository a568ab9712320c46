"""Rules about fit and loss: series that trigger a rule, and near misses that do not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.support.diagnosis_records import RISING, STUCK, facts, falling, record, table, well
from trainkit.diagnose.causes.optimization_failure import evidence as optimization_failure
from trainkit.diagnose.causes.overfitting import evidence as overfitting
from trainkit.diagnose.causes.stopped_too_early import evidence as stopped_too_early
from trainkit.diagnose.causes.underfitting_model_bias import evidence as underfitting_model_bias
from trainkit.diagnose.causes.wrong_loss import evidence as wrong_loss
from trainkit.diagnose.diagnosis import diagnose, examine


def test_overfitting_by_a_rise() -> None:
    verdict = overfitting(record(**well(val_loss=RISING)))
    assert verdict is not None
    assert (verdict.evidence["best_epoch"], verdict.since_epoch) == (4, 5)
    assert verdict.evidence["rise"] == pytest.approx(1.4 - 0.75)
    assert verdict.evidence["rise_noise"] == pytest.approx(2 * math.hypot(0.03, 0.03))
    assert verdict.confidence > 0.9
    # the same rise within the noise; and with a training loss that rises as well
    assert overfitting(record(**well(val_loss=RISING, val_loss_se=[0.8] * 12))) is None
    assert overfitting(record(**well(val_loss=RISING, train_loss=RISING))) is None
    # a rule that ended it has kept the best; and where nothing is learnt there is nothing to overdo
    assert overfitting(record(ended="early_stop", **well(val_loss=RISING))) is None
    wild = {"train_loss": [2.3] * 11 + [2.2], "val_loss": [2.3] * 11 + [2.7]}
    assert overfitting(record(**well(**wild))) is None


def test_overfitting_by_a_steady_rise_on_few_samples() -> None:
    steady = [1.0, 0.5, 0.3, *np.linspace(0.3, 0.5, 10)[1:].tolist()]
    wide = {"train_loss": falling(2.0, 0.25), "val_loss_se": [0.15] * 12}
    verdict = overfitting(record(**well(val_loss=steady, **wide)))
    assert verdict is not None
    # Mann's z of 10 values in order: (45 - 1) / sqrt(10 x 9 x 25 / 18)
    assert verdict.evidence["rise_trend"] == pytest.approx(44 / math.sqrt(125))
    assert verdict.evidence["rise"] < verdict.evidence["rise_noise"]
    shaken = [1.0, 0.5, 0.3, 0.5, 0.35, 0.48, 0.33, 0.5, 0.36, 0.47, 0.4, 0.5]
    assert overfitting(record(**well(val_loss=shaken, **wide))) is None


def test_overfitting_uses_the_logged_error_of_the_rise() -> None:
    """0.65 above the least: within 2 sqrt(0.8^2 + 0.8^2), and 3 errors of 0.2 by pairs."""
    rough = well(val_loss=RISING, val_loss_se=[0.8] * 12)
    assert overfitting(record(**rough)) is None
    paired = overfitting(record(**rough, val_loss_rise_se=[0.0] * 4 + [0.2] * 8))
    assert paired is not None
    assert paired.evidence["rise_noise"] == pytest.approx(0.4)
    assert overfitting(record(**rough, val_loss_rise_se=[0.0] * 4 + [0.4] * 8)) is None


def test_overfitting_by_a_gap() -> None:
    apart = record(**well(val_loss=falling(2.0, 0.9), train_loss=falling(2.0, 0.05)))
    verdict = overfitting(apart)
    assert verdict is not None
    assert 0.5 <= verdict.confidence < 0.9
    assert overfitting(record(**well(val_loss=falling(2.0, 0.3), train_loss=falling(2.0, 0.05)))) is None
    assert overfitting(record(**well(val_loss=falling(2.0, 0.9), val_loss_se=[0.5] * 12))) is None
    # 0.12 of the baseline apart: too much where training has nothing left to learn
    assert overfitting(record(**well(val_loss=falling(2.0, 0.32), train_loss=falling(2.0, 0.04, half=1.0)))) is None
    assert overfitting(record(**well(val_loss=falling(2.0, 0.28), train_loss=falling(2.0, 0.0, half=1.0)))) is not None
    assert overfitting(record(train_loss=[1.0, 0.5], val_loss=[1.0, 2.0])) is None


def test_underfitting_and_optimization_failure_differ_by_capacity() -> None:
    linear = {"model": {"kind": "linear"}}
    bias = underfitting_model_bias(record(linear, **well(**STUCK)))
    assert bias is not None
    # 64 x 10 + 10 weights against 2 x 1600 + 64
    assert (bias.evidence["parameters"], bias.evidence["parameters_that_fit_anything"]) == (650, 3264)
    assert bias.confidence < 0.7
    assert "larger model" in bias.evidence["cannot_tell"]
    assert optimization_failure(record(linear, **well(**STUCK))) is None
    failed = optimization_failure(record(**well(**STUCK)))
    assert failed is not None
    assert failed.since_epoch == 2
    assert underfitting_model_bias(record(**well(**STUCK))) is None
    # a third is gone: data may hold no more, unless the network cannot pass on what they hold
    third = {"train_loss": [1.9, 1.6, *[1.5] * 10], "val_loss": [1.9, 1.65, *[1.55] * 10]}
    for rule in (underfitting_model_bias, optimization_failure):
        assert rule(record(linear, **well(**third))) is None
        assert rule(record(**well(**third))) is None
    narrow = underfitting_model_bias(record({"model": {"kind": "mlp", "hidden": [2]}}, **well(**third)))
    assert narrow is not None
    assert narrow.evidence["narrowest_layer"] == 2
    held = underfitting_model_bias(record({"regularize": {"l2": 400}}, **well(**STUCK)))
    assert held is not None
    assert held.evidence["penalties"] == ["l2"]
    light = {"regularize": {"l1": 10}}
    assert underfitting_model_bias(record(light, **well(**STUCK))) is None
    shrunk = underfitting_model_bias(record(light, **well(**STUCK, train_weight_norm=[15.0] * 6 + [3.0] * 6)))
    assert shrunk is not None
    assert shrunk.evidence["penalties"] == ["l1"]
    moving = {**STUCK, "train_loss": np.linspace(2.3, 1.3, 12).tolist()}
    for rule in (underfitting_model_bias, optimization_failure):
        assert rule(record(linear, **well(**moving))) is None
        assert rule(record(linear, **well())) is None


def test_verdicts_list_a_cause_before_its_symptom() -> None:
    verdicts = examine(record(**well(**STUCK, train_dead_units=[0.9] * 12))).evidence
    assert [v.code for v in verdicts] == ["dead_units", "optimization_failure"]
    assert verdicts[1].evidence["explained_by"] == ["dead_units"]


def test_stopped_too_early() -> None:
    gaining = np.linspace(2.0, 1.0, 8).tolist()
    given = well(val_loss=gaining, train_loss=gaining)
    verdict = stopped_too_early(record(**given))
    assert verdict is not None
    assert verdict.evidence["gain_of_last_quarter"] == pytest.approx(2 / 7)
    assert stopped_too_early(record(**given, state="running", stop_reason=None)) is None
    assert stopped_too_early(record(**given, state="failed")) is None
    # two standard errors; one where training gained as much; none where every evaluation gained, half way at most
    creeping = np.linspace(2.2, 1.4, 8).tolist()
    creep = {**given, "val_loss": creeping, "train_loss": creeping, "val_loss_se": [0.3] * 8}
    assert stopped_too_early(record(**creep)) is not None
    four = {**creep, "val_loss": [2.2, 2.05, 1.9, 1.75], "train_loss": [2.2, 2.05, 1.9, 1.75]}
    assert stopped_too_early(record(**four)) is not None
    assert stopped_too_early(record(**{**four, "train_loss": [2.2, 2.25, 1.9, 1.75]})) is None
    # of three all that was gained counts, if little is learnt
    short = {**four, "val_loss": [2.2, 2.1, 2.05], "train_loss": [2.2, 2.1, 2.05], "val_loss_se": [0.02] * 3}
    assert stopped_too_early(record(**short)) is not None
    assert stopped_too_early(record(**{**given, "val_loss_se": [0.3] * 8})) is None
    uneven = [2.0, 1.5, 1.6, 1.55, 1.6, 1.286, 1.3, 1.0]
    given = {**given, "val_loss": uneven, "train_loss": uneven}
    standing = {**given, "train_loss": [2.0] * 8}
    assert stopped_too_early(record(**{**given, "val_loss_se": [0.2] * 8})) is not None
    assert stopped_too_early(record(**{**standing, "val_loss_se": [0.2] * 8})) is None
    assert stopped_too_early(record(**{**given, "val_loss_se": [0.3] * 8})) is None
    assert stopped_too_early(record(**well())) is None
    # two evaluations are a course; of one the mean of its epoch is the one before
    assert stopped_too_early(record(**well(val_loss=[2.0, 1.5], train_loss=[2.2, 1.7]))) is not None
    assert stopped_too_early(record(**well(val_loss=[1.5], train_loss=[2.0]))) is not None
    assert stopped_too_early(record(**well(val_loss=[1.95], train_loss=[2.0]))) is None
    assert stopped_too_early(record(**well(val_loss=RISING))) is None


def test_overfitting_by_the_gap_of_accuracies() -> None:
    """Nine of ten right, one of them utterly wrong: 0.8 +- 0.5."""
    apart = {"train_loss": falling(2.0, 0.0, half=1.0), "val_loss": falling(2.0, 0.8), "val_loss_se": [0.5] * 12}
    accuracies = {"train_accuracy": [1.0] * 12, "val_accuracy": [0.8] * 12}
    assert overfitting(record(**well(**apart, **accuracies))) is not None
    assert overfitting(record(**well(**apart, **{**accuracies, "val_accuracy": [0.99] * 12}))) is None


def test_overfitting_not_by_a_single_bad_evaluation() -> None:
    rough = well(val_loss=[*falling(1.9, 0.15)[:11], 0.45])
    assert overfitting(record(**rough)) is None
    assert overfitting(record(**well(val_loss=[*falling(1.9, 0.15)[:9], 0.8, 0.9, 1.0]))) is not None


def test_underfitting_by_dropout() -> None:
    strong = {"model": {"kind": "mlp", "dropout": 0.9}}
    behind = well(train_loss=np.linspace(2.6, 1.7, 12).tolist(), val_loss=np.linspace(2.2, 1.1, 12).tolist())
    found = examine(record(strong, **behind)).evidence
    assert [v.code for v in found] == ["underfitting_model_bias"]
    assert found[0].evidence["penalties"] == ["dropout"]
    assert [v.code for v in examine(record(**behind)).evidence] == ["stopped_too_early"]
    # what it does to training's numbers is not the rate's doing nor the weights'
    dropout_dominates = {
        "train_loss": np.linspace(90, 20, 12).tolist(),
        "val_loss": [2.3] * 12,
        "train_grad_norm": [5000.0] * 12,
    }
    assert examine(record(strong, **well(**dropout_dominates))).evidence[0].code == "underfitting_model_bias"
    assert examine(record(**well(**dropout_dominates))).evidence[0].code == "exploding_gradients"
    # validation at an epoch's end is ahead of the mean over that epoch: no sign of a penalty while all falls fast
    fast = well(train_loss=[2.3, 2.0, 1.6], val_loss=[2.1, 1.6, 1.1], val_loss_se=[0.03] * 3)
    assert [v.code for v in diagnose(record(strong, **fast)).verdicts] == ["stopped_too_early"]


def test_wrong_loss_for_squared_error_on_classes() -> None:
    squared = {"loss": {"kind": "mse"}}
    verdict = wrong_loss(record(squared, **well(train_loss=[0.09] * 12, val_loss=[0.09] * 12)))
    assert verdict is not None
    assert verdict.confidence == 0.8
    fine = wrong_loss(record(squared, **well(train_loss=[0.01] * 12, val_loss=[0.01] * 12)))
    assert fine is not None
    assert fine.confidence == 0.5
    assert wrong_loss(record(**well(**STUCK))) is None


def numbers(ratio: float, **changes: Any) -> dict[str, Any]:
    return {
        "train_loss": [0.3] * 6,
        "val_loss": [0.3] * 6,
        "val_mae": [2.0] * 6,
        "val_mse": [4.0 * ratio] * 6,
        **changes,
    }


def test_wrong_loss_for_outliers() -> None:
    verdict = wrong_loss(record(about=table(), **numbers(12.0)))
    assert verdict is not None
    assert verdict.evidence["mse_over_mae_squared"] == pytest.approx(12.0)
    assert wrong_loss(record(about=table(), **numbers(math.pi / 2))) is None
    assert wrong_loss(record({"loss": {"kind": "huber"}}, table(), **numbers(12.0))) is None


def test_wrong_loss_for_few_whole_numbers() -> None:
    columns = [{"name": "a", "type": "numeric"}, {"name": "y", "type": "numeric", "unique": 4, "integer": True}]
    verdict = wrong_loss(record({"task": "regression"}, table(columns=columns), **numbers(1.5)))
    assert verdict is not None
    assert verdict.confidence < 0.5


def test_skill_of_a_regression_is_r2() -> None:
    regression = record(about=table(), val_r2=[0.5, 0.75], val_mse=[8.0, 4.0], train_mse=[6.0, 2.0])
    # the variance of the validation part is 4 / (1 - 0.75) = 16
    assert regression.skill("val").tolist() == [0.5, 0.75]
    assert regression.skill("train").tolist() == pytest.approx([1 - 6 / 16, 1 - 2 / 16])


def test_healthy_with_and_without_evaluations() -> None:
    found = diagnose(record(**well()))
    assert [v.code for v in found.verdicts] == ["healthy"]
    assert found.verdicts[0].evidence["score"] > 0.9
    assert (found.final, found.recommendations) == (True, [])
    nothing = diagnose(record(state="queued", stop_reason=None))
    assert [(v.code, v.confidence) for v in nothing.verdicts] == [("inconclusive", 0.0)]
    assert nothing.final is False


def test_diagnose_handles_non_finite_and_extreme_values() -> None:
    nan, inf = math.nan, math.inf
    for values in ([nan] * 12, [inf] * 12, [0.0] * 12, [1e300] * 12, [-1.0] * 12, [1.0], [nan, 1.0, inf, 2.0]):
        for about in (
            facts(),
            table(),
            facts(classes={"a": 2000, "b": 0}),
            facts(samples=12, classes={"a": 6, "b": 6}),
        ):
            found = diagnose(record(about=about, **dict.fromkeys(well(), values)))
            assert found.verdicts
            assert all(0 <= v.confidence <= 1 for v in found.verdicts), found.verdicts
