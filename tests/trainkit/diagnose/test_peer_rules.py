"""Peer rules against tables computed by hand and reference formulas."""

from __future__ import annotations

import math
import random
import statistics
import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from pydantic import ValidationError

from trainkit.diagnose.early_stopping import EarlyStopDecision, EarlyStopping, Evaluation
from trainkit.diagnose.peer_rules import (
    MAX_LISTED_PEERS,
    PeerRules,
    PeerState,
    RunningStats,
    median,
    percentile,
    updated_stats,
)
from trainkit.spec.early_stop import Median, Patience, PeerRule, Percentile

NAN, INF = math.nan, math.inf


def peer_state(name: str, epoch: int, values: Sequence[float], monitor: str = "val_loss") -> PeerState | None:
    """How a job stands at the epoch that was evaluated after each of its epochs."""
    if len(values) < epoch:
        return None
    running_stats: dict[str, RunningStats] = {}
    for value in values[:epoch]:
        running_stats = updated_stats(running_stats, {monitor: value})
    return PeerState(f"job_{name}", epoch * 10, epoch, running_stats)


def decide(
    rule: PeerRule, values_of_job: Sequence[float], others: dict[str, Sequence[float]]
) -> list[EarlyStopDecision]:
    """The decisions about a job after each of its epochs; the others have all come as far as their values go."""
    rules, decisions = PeerRules([rule]), []
    for epoch, value in enumerate(values_of_job, start=1):
        peers = [one for name, values in others.items() if (one := peer_state(name, epoch, values, rule.monitor))]
        decisions += rules.observe(Evaluation(epoch, epoch, {rule.monitor: value}), lambda _, peers=peers: peers, epoch)
    return decisions


def actions(decisions: list[EarlyStopDecision]) -> str:
    return "".join("s" if decision.action == "stop" else "." for decision in decisions)


# Running averages of A: 4, 3, 2; B: 6, 5, 4; C: 2, 2, 2 (after 1, 2, 3 epochs).
A, B, C = [4.0, 2.0, 0.0], [6.0, 4.0, 2.0], [2.0, 2.0, 2.0]
D = [8.0, 8.0, 8.0]


@pytest.mark.parametrize(
    ("values", "others", "thresholds", "expected"),
    [
        # odd: medians of {4, 6, 2}, {3, 5, 2}, {2, 4, 2}; the best so far is 5, 3.5, 3.5
        ([5.0, 3.5, 3.6], {"a": A, "b": B, "c": C}, [4.0, 3.0, 2.0], "sss"),
        ([3.9, 3.1, 1.9], {"a": A, "b": B, "c": C}, [4.0, 3.0, 2.0], ".s."),
        # even: the mean of the middle two, (4+6)/2, (3+5)/2, (2+4)/2 of {4, 6, 2, 8} ...
        ([5.5, 4.5, 3.5], {"a": A, "b": B, "c": C, "d": D}, [5.0, 4.0, 3.0], "sss"),
        ([4.9, 4.9, 3.1], {"a": A, "b": B, "c": C, "d": D}, [5.0, 4.0, 3.0], ".ss"),
        # a tie goes on, and it is the best so far that counts, not the value at hand
        ([4.0, 3.0, 2.0], {"a": A, "b": B, "c": C}, [4.0, 3.0, 2.0], "..."),
        ([2.0, 9.0, 9.0], {"a": A, "b": B, "c": C}, [4.0, 3.0, 2.0], "..."),
        # two are too few; a third that has come to epoch 2 only counts there
        ([9.0, 9.0, 9.0], {"a": A, "b": B}, [None] * 3, "..."),
        ([9.0, 9.0, 9.0], {"a": A, "b": B, "c": C[:2]}, [4.0, 3.0, None], "ss."),
        # an average that is not finite is passed over: {4, 2} is left of {4, NaN, 2}, and {3, 2}
        ([3.5, 2.6, 2.6], {"a": A, "b": [NAN, 1.0, 1.0], "c": C}, [3.0, 2.5, 2.0], "sss"),
        ([3.0, 2.5, 2.0], {"a": A, "b": [1.0, INF, 1.0], "c": C}, [2.0, 2.5, 2.0], "s.."),
        ([9.0], {"a": [NAN], "b": [INF], "c": [NAN]}, [None], "."),
        # of its own nothing finite is worse than any number; one finite value is a best from then on
        ([NAN, INF, 1.0], {"a": A, "b": B, "c": C}, [4.0, 3.0, 2.0], "ss."),
        ([1.0, NAN, NAN], {"a": A, "b": B, "c": C}, [4.0, 3.0, 2.0], "..."),
        ([NAN], {"a": A, "b": B}, [None], "."),
    ],
)
def test_median_rule_by_hand(
    values: list[float], others: dict[str, list[float]], thresholds: list[float | None], expected: str
) -> None:
    decisions = decide(Median(), values, others)
    assert [decision.inputs["threshold"] for decision in decisions] == thresholds
    assert actions(decisions) == expected


def test_median_rule_of_a_maximised_metric() -> None:
    others = {"a": [0.5, 0.7], "b": [0.6, 0.8], "c": [0.7, 0.9]}  # averages 0.5, 0.6, 0.7 and 0.6, 0.7, 0.8
    decisions = decide(Median(monitor="val_accuracy"), [0.59, 0.7], others)
    assert [d.inputs["threshold"] for d in decisions] == pytest.approx([0.6, 0.7])
    assert actions(decisions)[0] == "s"
    assert actions(decide(Median(monitor="val_accuracy"), [0.61, 0.2], others)) == ".s"


# At epoch 1 others have 1, 2, 3, 4, 5; the percentile p lies at place (n - 1) p / 100 of the ordered values.
FIVE = {name: [float(value)] for name, value in zip("abcde", (3, 1, 5, 2, 4), strict=True)}
FOUR = {name: [float(value)] for name, value in zip("abcd", (30, 10, 40, 20), strict=True)}


@pytest.mark.parametrize(
    ("share", "monitor", "others", "threshold", "going_on", "stopped"),
    [
        (25.0, "val_loss", FIVE, 2.0, 2.0, 2.0001),  # place 1
        (50.0, "val_loss", FIVE, 3.0, 3.0, 3.0001),
        (0.0, "val_loss", FIVE, 1.0, 1.0, 1.0001),  # only who beats or equals all others
        (100.0, "val_loss", FIVE, 5.0, 5.0, 5.0001),
        (10.0, "val_loss", FIVE, 1.4, 1.39, 1.41),  # place 0.4: 1 + 0.4 (2 - 1)
        (25.0, "val_loss", FOUR, 17.5, 17.5, 17.6),  # place 0.75: 10 + 0.75 (20 - 10)
        (50.0, "val_loss", FOUR, 25.0, 25.0, 25.1),
        (25.0, "val_r2", FIVE, 4.0, 4.0, 3.9999),  # the largest quarter: the 75th percentile, place 3
        (25.0, "val_r2", FOUR, 32.5, 32.5, 32.4),  # place 2.25: 30 + 0.25 (40 - 30)
        (25.0, "val_loss", {**FIVE, "f": [NAN], "g": [INF]}, 2.0, 2.0, 2.0001),  # passed over
    ],
)
def test_percentile_rule_by_hand(
    share: float, monitor: str, others: dict[str, list[float]], threshold: float, going_on: float, stopped: float
) -> None:
    rule = Percentile(percentile=share, monitor=monitor)
    for value, expected in ((going_on, "."), (stopped, "s")):
        decisions = decide(rule, [value], others)
        assert decisions[0].inputs["threshold"] == pytest.approx(threshold)
        assert actions(decisions) == expected


def test_percentile_rule_compares_the_best_value_with_the_current_epoch() -> None:
    others = {"a": [1.0, 9.0], "b": [2.0, 8.0], "c": [3.0, 7.0]}
    # epoch 1: 2.5 against 1.5; epoch 2: its best is still 2.5, against 7.5 of {7, 8, 9}
    decisions = decide(Percentile(), [2.5, 8.5], others)
    assert [d.inputs["threshold"] for d in decisions] == [1.5, 7.5]
    assert actions(decisions) == "s."


def test_peer_without_the_epoch_counts_for_the_median_rule_only() -> None:
    far = [peer_state(name, 3, [value] * 3) for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0))]

    def lookup(_: int) -> list[PeerState]:
        return [one for one in far if one is not None]

    evaluation = Evaluation(4, 40, {"val_loss": 2.5})
    (by_median,) = PeerRules([Median()]).observe(evaluation, lookup, 7)
    (by_percentile,) = PeerRules([Percentile()]).observe(evaluation, lookup, 7)
    assert (by_median.action, by_median.inputs["others"]) == ("stop", 3)
    assert (by_percentile.action, by_percentile.inputs["others"]) == ("continue", 0)
    assert by_percentile.reason == "0 of 3 other jobs have reached this epoch"


@pytest.mark.parametrize("kind", [Median, Percentile])
def test_peer_rules_compare_nothing_up_to_the_start_epoch(kind: type[PeerRule]) -> None:
    decisions = decide(kind(start_epoch=2), [99.0, 99.0, 99.0], {"a": A, "b": B, "c": C})
    assert actions(decisions) == "..s"
    assert decisions[0].inputs == {"val_loss": 99.0, "best": 99.0, "start_epoch": 2}
    assert "threshold" in decisions[2].inputs


def test_peer_decision_holds_its_inputs() -> None:
    (decision,) = decide(Median(), [5.0], {"b": B, "a": A, "c": [NAN]})
    assert decision.inputs == {
        "val_loss": 5.0,
        "best": 5.0,
        "threshold": 5.0,
        "others": 3,
        "min_jobs": 3,
        "compared": [
            {"job": "job_a", "seq": 10, "value": 4.0},
            {"job": "job_b", "seq": 10, "value": 6.0},
            {"job": "job_c", "seq": 10, "value": decision.inputs["compared"][2]["value"]},
        ],
        "basis": 1,
    }
    assert math.isnan(decision.inputs["compared"][2]["value"])
    assert (decision.action, decision.stop_reason) == ("continue", None)
    (decision,) = decide(Median(), [6.0], {"b": B, "a": A, "c": C})
    assert decision.stop_reason == "early_stop"
    assert (
        decision.reason == "the best val_loss so far, 6, is worse than 4, the median of 3 other jobs' running averages"
    )
    (decision,) = decide(Percentile(), [NAN], FIVE)
    assert (
        decision.reason
        == "val_loss, which was never finite, is worse than 2, the threshold of the best 25 % of 5 other jobs at this epoch"
    )


def test_peer_decision_lists_a_limited_number_of_peers() -> None:
    many = {f"{number:03}": [float(number)] for number in range(MAX_LISTED_PEERS + 51)}
    (decision,) = decide(Median(), [75.0], many)
    assert (decision.inputs["threshold"], decision.inputs["others"], decision.action) == (
        75.0,
        MAX_LISTED_PEERS + 51,
        "continue",
    )
    assert [one["job"] for one in decision.inputs["compared"]] == [
        f"job_{number:03}" for number in range(MAX_LISTED_PEERS)
    ]


def optunas(best: float, values: list[float], share: float, mode: str, least: int) -> bool:
    """Whether to prune, as Optuna 4's PercentilePruner documents it, by numpy."""
    if len(values) < least:
        return False
    with warnings.catch_warnings(action="ignore"):  # where all are NaN
        threshold = float(np.nanpercentile(np.asarray(values), share if mode == "min" else 100 - share))
    return False if math.isnan(threshold) else best > threshold if mode == "min" else best < threshold


@pytest.mark.parametrize("seed", range(20))
def test_peer_rules_equal_reference_formulas_on_random_tables(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(50):
        monitor = rng.choice(["val_loss", "val_accuracy"])
        mode, epoch = ("min" if monitor == "val_loss" else "max"), rng.randint(1, 5)
        length = [rng.choice([epoch, epoch + 2, epoch - 1]) for _ in range(rng.randint(0, 9))]
        others = {str(n): [round(rng.random(), 1) for _ in range(size)] for n, size in enumerate(length)}
        values_of_job = [round(rng.random(), 1) for _ in range(epoch)]
        best = min(values_of_job) if mode == "min" else max(values_of_job)
        reached = [values for values in others.values() if len(values) >= epoch]

        at_epoch = [rng.choice([values[epoch - 1], NAN]) for values in reached]
        for values, value in zip(reached, at_epoch, strict=True):
            values[epoch - 1] = value
        share, least = rng.choice([0.0, 10.0, 25.0, 33.3, 50.0, 100.0]), rng.randint(1, 4)
        decision = decide(Percentile(percentile=share, monitor=monitor, min_jobs=least), values_of_job, others)[-1]
        assert (decision.action == "stop") == optunas(best, at_epoch, share, mode, least)

        decision = decide(Median(monitor=monitor, min_jobs=least), values_of_job, others)[-1]
        means = [sum(values[:epoch]) / epoch for values in reached]
        finite = [mean for mean in means if math.isfinite(mean)]
        if len(reached) < least or not finite:
            assert (decision.action, decision.inputs["threshold"]) == ("continue", None)
        else:
            middle = statistics.median(finite)
            assert decision.inputs["threshold"] == middle
            assert (decision.action == "stop") == (best > middle if mode == "min" else best < middle)


def test_median_and_percentile_of_no_values() -> None:
    assert median([]) is None
    assert median([NAN, INF]) is None
    assert median([7.0]) == 7.0
    assert percentile([], 25) is None
    assert percentile([-INF, 7.0], 25) == 7.0


def test_running_stats_keep_the_sum_and_the_best_finite_value() -> None:
    seen: dict[str, RunningStats] = {}
    for loss, accuracy in ((3.0, 0.1), (NAN, 0.5), (1.0, 0.3)):
        seen = updated_stats(seen, {"val_loss": loss, "val_accuracy": accuracy, "train_lr": 1.0, "val_loss_se": 0.1})
    assert set(seen) == {"val_loss", "val_accuracy"}
    assert (seen["val_loss"].count, seen["val_loss"].best, seen["val_loss"].value) == (3, 1.0, 1.0)
    assert math.isnan(seen["val_loss"].mean)
    assert seen["val_accuracy"].best == 0.5
    assert seen["val_accuracy"].mean == pytest.approx(0.3)


def test_early_stopping_skips_peer_rules() -> None:
    stopping = EarlyStopping([Median(), Patience(patience=1), Percentile()])
    decisions = stopping.observe(Evaluation(1, 1, {"val_loss": 1.0}))
    assert [decision.rule["kind"] for decision in decisions] == ["patience"]
    assert [one["rule"][0] for one in stopping.state()] == ["patience"]


@pytest.mark.parametrize("wrong", [{"percentile": -1}, {"percentile": 100.1}, {"min_jobs": 0}, {"start_epoch": -1}])
def test_peer_rule_bounds(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Percentile.model_validate(wrong)
