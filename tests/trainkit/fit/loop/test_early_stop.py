"""Every rule against tables worked by hand."""

from __future__ import annotations

import math

import pytest

from trainkit.diagnose.early_stopping import EarlyStopping, Evaluation, first_stop
from trainkit.spec.early_stop import (
    Diverged,
    EarlyStopRule,
    Gap,
    NoisePatience,
    NoProgress,
    Patience,
    Stalled,
    Target,
    TimeBudget,
)

NAN, INF = math.nan, math.inf


def run(rule: EarlyStopRule, values: list[float], monitor: str = "val_loss") -> list[tuple[str, dict]]:
    """(action, inputs) of each evaluation, epochs from 1."""
    stopping = EarlyStopping([rule])
    out = []
    for epoch, value in enumerate(values, start=1):
        (decision,) = stopping.observe(Evaluation(epoch, epoch * 10, {monitor: value}))
        out.append((decision.action, decision.inputs))
    return out


# values, patience, min_delta -> wait after each evaluation; the last one stops
PATIENCE_TABLES = [
    ("plain", [3.0, 2.0, 2.5, 2.4], 2, 0.0, [0, 0, 1, 2], 2.0, 2),
    ("a tie is a miss and keeps the earlier", [2.0, 2.0, 2.0], 2, 0.0, [0, 1, 2], 2.0, 1),
    ("a NaN first is a miss, never a best", [NAN, 0.5, 0.4, 0.6, 0.7], 2, 0.0, [1, 0, 0, 1, 2], 0.4, 3),
    ("minus infinity is no best", [-INF, 1.0, 2.0, 3.0], 2, 0.0, [1, 0, 1, 2], 1.0, 2),
    ("drift below min_delta adds up against the best", [1.0, 0.95, 0.9, 0.85], 3, 0.2, [0, 1, 2, 3], 1.0, 1),
    ("drift beyond min_delta in sum resets", [1.0, 0.75, 0.5, 0.6, 0.6], 2, 0.25, [0, 1, 0, 1, 2], 0.5, 3),
    ("exactly min_delta is a miss", [1.0, 0.75, 0.75], 2, 0.25, [0, 1, 2], 1.0, 1),
    ("patience 1", [1.0, 0.5, 0.5], 1, 0.0, [0, 0, 1], 0.5, 2),
]


@pytest.mark.parametrize(
    ("values", "patience", "min_delta", "waits", "best", "best_epoch"),
    [table[1:] for table in PATIENCE_TABLES],
    ids=[table[0] for table in PATIENCE_TABLES],
)
def test_patience_tables(values, patience, min_delta, waits, best, best_epoch):
    steps = run(Patience(patience=patience, min_delta=min_delta), values)
    assert [inputs["wait"] for _, inputs in steps] == waits
    assert [action for action, _ in steps] == ["continue"] * (len(values) - 1) + ["stop"]
    assert (steps[-1][1]["best"], steps[-1][1]["best_epoch"]) == (best, best_epoch)


def test_patience_max_mode_follows_the_metric():
    steps = run(Patience(monitor="val_accuracy", patience=2), [0.5, 0.6, 0.6, 0.55], "val_accuracy")
    assert [inputs["wait"] for _, inputs in steps] == [0, 0, 1, 2]
    assert steps[-1][0] == "stop"


def test_start_epoch_counts_no_misses_but_tracks_the_best():
    steps = run(Patience(patience=1, start_epoch=3), [1.0, 2.0, 3.0, 1.5])
    assert [(action, inputs["wait"]) for action, inputs in steps] == [("continue", 0)] * 3 + [("stop", 1)]
    assert steps[-1][1]["best"] == 1.0


def test_restart_in_the_middle_changes_nothing():
    values = [3.0, 2.0, NAN, 2.5, 1.0, 1.1, 1.2, 1.3]
    rules = [
        Patience(patience=3),
        NoisePatience(patience=3),
        Diverged(factor=4),
        NoProgress(evaluations=3, min_delta=0.01),
        Stalled(evaluations=2, min_delta=0.1),
        Gap(patience=2, min_growth=0.05),
    ]

    def observe(stopping: EarlyStopping, epoch: int) -> list[dict]:
        metrics = {"val_loss": values[epoch], "val_loss_se": 0.3, "train_loss": 1.0 / (epoch + 1)}
        return [d.as_dict() for d in stopping.observe(Evaluation(epoch + 1, epoch, metrics))]

    whole = EarlyStopping(rules)
    expected = [observe(whole, epoch) for epoch in range(len(values))]
    for cut in range(len(values)):
        before, after = EarlyStopping(rules), EarlyStopping(rules)
        for epoch in range(cut):
            observe(before, epoch)
        after.load(before.state())
        assert repr([observe(after, epoch) for epoch in range(cut, len(values))]) == repr(expected[cut:])


def test_patience_comes_from_the_spec_not_from_the_checkpoint():
    long, short = EarlyStopping([Patience(patience=9)]), EarlyStopping([Patience(patience=2)])
    for epoch, value in enumerate([1.0, 2.0, 2.0, 2.0], start=1):
        long.observe(Evaluation(epoch, epoch, {"val_loss": value}))
    assert "patience" not in {key for state in long.state() for key in state}
    short.load(long.state())
    decision = first_stop(short.observe(Evaluation(5, 5, {"val_loss": 2.0})))
    assert decision is not None
    assert decision.inputs["wait"] == 4  # beyond the new patience of 2: >= stops, == would run for ever


def test_state_of_a_rule_that_watches_something_else_is_not_taken_over():
    saved = EarlyStopping([Patience(patience=3)])
    saved.observe(Evaluation(1, 1, {"val_loss": 0.1}))
    other = EarlyStopping([Patience(monitor="val_accuracy", patience=3)])
    other.load(saved.state())
    (decision,) = other.observe(Evaluation(2, 2, {"val_accuracy": 0.05}))
    assert decision.inputs["best"] == 0.05


def test_target():
    steps = run(Target(value=0.9), [0.5, NAN, INF, 0.9], "val_accuracy")
    assert [action for action, _ in steps] == ["continue", "continue", "continue", "stop"]
    steps = run(Target(monitor="val_loss", value=0.1), [0.5, 0.1])
    assert [action for action, _ in steps] == ["continue", "stop"]


def test_diverged():
    def losses(rule: Diverged, *pairs: tuple[float, float]) -> list[str]:
        stopping = EarlyStopping([rule])
        return [
            stopping.observe(Evaluation(i, i, {"train_loss": train, "val_loss": val}))[0].action
            for i, (train, val) in enumerate(pairs)
        ]

    assert losses(Diverged(), (2.0, 2.0), (1e30, 1e30), (1.0, NAN)) == ["continue", "continue", "stop"]
    assert losses(Diverged(), (INF, 1.0)) == ["stop"]
    assert losses(Diverged(factor=2), (2.0, 3.9), (3.0, 4.0), (1.0, 4.1)) == ["continue", "continue", "stop"]


def test_batch_loss_that_is_not_finite_stops_only_with_a_diverged_rule():
    assert EarlyStopping([Diverged()]).observe_batch_loss(1, 7, 3.0) is None
    assert EarlyStopping([Patience()]).observe_batch_loss(1, 7, NAN) is None
    decision = EarlyStopping([Patience(), Diverged()]).observe_batch_loss(1, 7, NAN)
    assert decision is not None
    assert (decision.stop_reason, decision.step) == ("diverged", 7)


def test_time_budget():
    stopping = EarlyStopping([TimeBudget(seconds=10)])
    assert [stopping.observe(Evaluation(1, 1, {}, s))[0].action for s in (9.9, 10.0)] == ["continue", "stop"]


def test_no_progress_needs_both_losses_still():
    stopping = EarlyStopping([NoProgress(evaluations=3, min_delta=0.1)])
    table = [(2.3, 2.3), (2.3, 2.25), (2.25, 1.9), (2.25, 1.85), (2.26, 1.8)]
    # ranges over the last three: train .05, val .4 -> .4 -> .1: within 0.1 only at the end
    actions = [
        stopping.observe(Evaluation(i, i, {"train_loss": a, "val_loss": b}))[0].action for i, (a, b) in enumerate(table)
    ]
    assert actions == ["continue"] * 4 + ["stop"]


def test_gap_must_grow_in_a_row_and_exceed_the_least():
    stopping = EarlyStopping([Gap(patience=2, min_gap=0.4)])
    gaps = [0.1, 0.2, 0.3, 0.3, 0.35, 0.45]
    # grown: 0 1 2(gap .3 <= .4) 0(equal) 1 2 -> stop
    actions = [
        stopping.observe(Evaluation(i, i, {"train_loss": 1.0, "val_loss": 1.0 + gap}))[0].action
        for i, gap in enumerate(gaps)
    ]
    assert actions == ["continue"] * 5 + ["stop"]


def test_a_gap_must_grow_by_a_share_of_itself():
    stopping = EarlyStopping([Gap(patience=2, min_growth=0.5)])
    gaps = [1.0, 1.5, 2.5, INF, 4.0, 8.0, 16.0]
    # grown: 0, 0 (half of 1 exactly), 1, then 2 by the rule's word (infinity is growth) -> stop
    decisions = [
        stopping.observe(Evaluation(i, i, {"train_loss": 0.0, "val_loss": gap}))[0] for i, gap in enumerate(gaps)
    ]
    assert [d.inputs["grown"] for d in decisions] == [0, 0, 1, 2, 0, 1, 2]
    assert [d.action for d in decisions] == ["continue"] * 3 + ["stop", "continue", "continue", "stop"]


def test_stalled_looks_at_the_training_loss_alone():
    stopping = EarlyStopping([Stalled(evaluations=3, min_delta=0.25)])
    losses = [2.0, 1.75, 1.5, 1.5, NAN, 1.3]
    # against the least: first, exactly .25 is no fall, .5 is one, then misses
    waits = [0, 1, 0, 1, 2, 3]
    decisions = [stopping.observe(Evaluation(i, i, {"train_loss": value}))[0] for i, value in enumerate(losses)]
    assert [d.inputs["wait"] for d in decisions] == waits
    assert [d.action for d in decisions] == ["continue"] * 5 + ["stop"]
    assert (decisions[-1].stop_reason, decisions[-1].inputs["least_before"]) == ("no_progress", 1.5)


def test_noise_aware_patience_wants_more_than_the_noise():
    stopping = EarlyStopping([NoisePatience(monitor="val_accuracy", patience=2, standard_errors=2.0)])
    table = [(0.5, 0.05), (0.59, 0.05), (0.61, 0.05), (0.7, 0.05), (0.8, 0.04)]
    # 2 SE: .1, .1, .1, .1, .08 -> best .5, miss (.09), best .61, miss (.09), best .8
    decisions = [
        stopping.observe(Evaluation(i, i, {"val_accuracy": p, "val_accuracy_se": se}))[0]
        for i, (p, se) in enumerate(table, start=1)
    ]
    assert [d.inputs["wait"] for d in decisions] == [0, 1, 0, 1, 0]
    assert [d.inputs["best"] for d in decisions] == [0.5, 0.5, 0.61, 0.61, 0.8]
    assert decisions[1].inputs == {
        "val_accuracy": 0.59,
        "best": 0.5,
        "best_epoch": 1,
        "wait": 1,
        "patience": 2,
        "min_delta": 0.1,
        "standard_error": 0.05,
        "standard_errors": 2.0,
    }
    plain, noisy = Patience(patience=2), NoisePatience(patience=2, standard_errors=0)
    values = [3.0, 2.0, NAN, 1.5, 1.6, 1.7]
    both = EarlyStopping([plain, noisy])
    for epoch, value in enumerate(values, start=1):
        one, other = both.observe(Evaluation(epoch, epoch, {"val_loss": value, "val_loss_se": INF}))
        assert (one.action, one.reason) == (other.action, other.reason.replace(" by 0 (0 SE)", ""))
    assert one.action == "stop"


def test_first_rule_in_order_decides_and_all_are_recorded():
    stopping = EarlyStopping([Target(monitor="val_loss", value=9), Diverged(), Patience(patience=1)])
    stopping.observe(Evaluation(1, 1, {"val_loss": 10.0, "train_loss": 1.0}))
    decisions = stopping.observe(Evaluation(2, 2, {"val_loss": 9.0, "train_loss": NAN}))
    assert [d.action for d in decisions] == ["stop", "stop", "continue"]
    assert first_stop(decisions).stop_reason == "target_reached"


def test_a_metric_that_was_not_measured_is_named():
    with pytest.raises(KeyError, match="val_f1 was not measured; measured: val_loss"):
        run(Patience(monitor="val_f1"), [1.0])
