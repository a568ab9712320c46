"""Next steps of the autopilot for histories with chosen outcomes."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from tests.support.diagnosis_records import facts, table
from trainkit.diagnose.autopilot import (
    AutopilotEnd,
    AutopilotStep,
    Budget,
    CompletedStep,
    History,
    canonical_spec,
    next_step,
)
from trainkit.diagnose.estimates import MetricEstimate
from trainkit.diagnose.narrative import explain
from trainkit.spec import DatasetFacts, SpecError, resolve

BASE: dict[str, Any] = {"dataset": "ds_1", "model": {"kind": "mlp"}}
WITH_CNN: dict[str, Any] = {"dataset": "ds_1", "model": {"kind": "cnn"}}
EXPECTED = {"metric": "val_loss", "direction": "down", "size": "a little", "source": "a test"}
DROPOUT = {"model": {"kind": "mlp", "dropout": 0.5}}
DECAY = {"regularize": {"weight_decay": 0.1}}
RATE = {"optimizer": {"kind": "adam", "lr": 0.01}}
Outcomes = Callable[[AutopilotStep], CompletedStep]


def offers(code: str, *patches: dict[str, Any]) -> dict[str, Any]:
    """A diagnosis with one verdict and its remedies."""
    specs = [
        {"patch": patch, "spec": {}, "why": f"against {code}", "expected": EXPECTED, "code": code} for patch in patches
    ]
    return {
        "final": True,
        "verdicts": [{"code": code, "message": f"It is {code}.", "confidence": 0.9}],
        "recommendations": specs,
    }


HEALTHY = offers("healthy")


def ran(
    step: AutopilotStep, loss: float | None, diagnosis: dict[str, Any] = HEALTHY, epoch: int = 20, **more: Any
) -> CompletedStep:
    """A run that kept weights of this validation loss, known to +-0.01: noise of a comparison is 0.3 x 0.0141."""
    metrics = (
        {}
        if loss is None
        else {"val_loss": MetricEstimate(loss, 0.01, epoch), "val_accuracy": MetricEstimate(1 - loss, 0.01, epoch)}
    )
    return CompletedStep(step, "succeeded" if loss is not None else "failed", metrics, diagnosis, seconds=10.0, **more)


def drive(
    outcome: Outcomes, base: dict[str, Any] = BASE, about: DatasetFacts | None = None, budget: Budget | None = None
) -> tuple[list[CompletedStep], AutopilotEnd]:
    """Every step until there is none."""
    tried: list[CompletedStep] = []
    while not isinstance(step := next_step(base, tried, about or facts(), budget), AutopilotEnd):
        tried.append(outcome(step))
    return tried, step


def by_hash(step: AutopilotStep) -> CompletedStep:
    """Losses that are arbitrary, and always the same for a document."""
    number = sum(map(ord, json.dumps(step.document, sort_keys=True))) * 7919 % 1000
    return ran(step, 0.3 + number / 5000, offers("overfitting", DROPOUT, DECAY), epoch=5 + number % 16)


@pytest.mark.parametrize("base", [BASE, WITH_CNN])
@pytest.mark.parametrize("about", [facts(), table()])
def test_autopilot_never_repeats_a_spec_and_ends(base: dict[str, Any], about: DatasetFacts) -> None:
    if about.kind == "table":
        base = BASE
    tried, done = drive(by_hash, base, about, Budget(jobs=None))
    seen = [canonical_spec(resolve(one.step.document, about)) for one in tried]
    assert len(seen) == len(set(seen)) > 8
    assert done.reason == "nothing_left"
    assert done.simplest == History(tried, about).best


def test_next_step_starts_with_the_submitted_spec() -> None:
    step = next_step(BASE, [], facts())
    assert isinstance(step, AutopilotStep)
    assert (step.document, step.patch, step.source, step.kind) == (BASE, {}, None, "start")


def test_next_step_depends_on_the_history_alone() -> None:
    tried, _ = drive(by_hash)
    for cut in range(len(tried)):
        assert next_step(BASE, tried[:cut], facts()) == tried[cut].step
        assert next_step(json.loads(json.dumps(BASE)), list(tried[:cut]), facts()) == tried[cut].step


def test_next_step_is_a_valid_spec_with_the_same_samples_and_metric() -> None:
    harmful = offers(
        "leakage",
        {"split": {"seed": 1}},
        {"task": "regression"},
        {"dataset": "ds_2"},
        {"train": {"monitor": "val_recall"}},
    )
    tried, _ = drive(lambda step: ran(step, 0.4, harmful), budget=Budget(jobs=20))
    specs = [resolve(one.step.document, facts()).spec for one in tried]
    assert len(specs) > 8
    assert {(spec.split, spec.task, spec.dataset, spec.train.monitor) for spec in specs} == {
        (specs[0].split, specs[0].task, specs[0].dataset, "val_loss")
    }
    left = explain(tried, facts())[0]["skipped_recommendations"]
    assert [recommendation["patch"] for recommendation in left] == [
        offer["patch"] for offer in harmful["recommendations"]
    ]
    assert all(recommendation["reason"] for recommendation in left)


def test_next_step_keeps_the_monitor_when_the_early_stop_rule_is_replaced() -> None:
    base = {**BASE, "early_stop": [{"kind": "patience", "monitor": "val_accuracy"}]}
    rule = {"early_stop": [{"kind": "patience", "monitor": "val_loss", "patience": 5}]}
    tried = [ran(AutopilotStep(base), 0.4, offers("label_noise", rule))]
    step = next_step(base, tried, facts())
    assert isinstance(step, AutopilotStep)
    assert step.document["early_stop"] == rule["early_stop"]
    assert step.document["train"]["monitor"] == "val_accuracy"


def test_next_step_takes_recommendations_before_heuristics() -> None:
    tried, _ = drive(lambda step: ran(step, 0.4 if step.source is None else 0.5, offers("overfitting", DROPOUT, DECAY)))
    assert [(one.step.kind, one.step.source) for one in tried[:4]] == [
        ("start", None), ("recommendation", 0), ("recommendation", 0), ("heuristic", 0)
    ]  # fmt: skip
    assert [one.step.patch for one in tried[1:3]] == [DROPOUT, DECAY]
    assert all(one.step.kind == "heuristic" and one.step.why and one.step.expected for one in tried[3:])


def test_next_step_builds_on_the_best_run() -> None:
    losses = {"start": 0.5, "0.5": 0.3, "0.1": 0.6}

    def outcome(step: AutopilotStep) -> CompletedStep:
        name = next((key for key, value in (("0.5", DROPOUT), ("0.1", DECAY)) if step.patch == value), "start")
        return ran(step, losses[name] if step.kind != "heuristic" else 0.7, offers("overfitting", DROPOUT, DECAY))

    tried, done = drive(outcome)
    assert done.best == 1
    assert [one.step.source for one in tried] == [None, 0, *[1] * 6]
    assert tried[2].step.document == {**BASE, **DROPOUT, **DECAY}
    assert all("regularize" not in one.step.document for one in tried[3:] if one.step.code != "weight_decay")


def test_best_run_of_equal_ones_is_the_earlier() -> None:
    noise = 0.3 * 0.01 * 2**0.5
    for gain, best in ((0.9 * noise, 0), (1.1 * noise, 1)):
        tried = [
            ran(AutopilotStep(BASE), 0.4),
            ran(AutopilotStep({**BASE, **DECAY}, DECAY, source=0, kind="heuristic", code="weight_decay"), 0.4 - gain),
        ]
        assert History(tried, facts()).best == best
        assert History(tried, facts()).done("jobs_spent") == AutopilotEnd("jobs_spent", 1, best)


def test_next_step_combines_small_gains_once() -> None:
    def outcome(step: AutopilotStep) -> CompletedStep:
        loss = {"start": 0.4, "recommendation": 0.398, "combination": 0.39, "heuristic": 0.5}[step.kind]
        return ran(step, loss, offers("overfitting", DROPOUT, DECAY) if step.kind == "start" else HEALTHY)

    tried, done = drive(outcome)
    combined = [one.step for one in tried if one.step.kind == "combination"]
    assert len(combined) == 1
    assert combined[0].document == {**BASE, **DROPOUT, **DECAY}
    assert done.best == tried.index(next(one for one in tried if one.step.kind == "combination"))


def test_next_step_does_not_extend_a_combination_without_a_gain() -> None:
    tried, _ = drive(lambda step: ran(step, 0.4 if step.source is None else 0.398), budget=Budget(jobs=10))
    parts = [
        frozenset(json.dumps(leaf) for leaf in one.step.patch.items())
        for one in tried
        if one.step.kind == "combination"
    ]
    assert len(parts) > 1
    assert not any(first & second for first, second in pairwise(parts))


def test_next_step_does_not_revert_a_change_that_helped() -> None:
    back = {"optimizer": {"kind": "adam", "lr": 0.001}}
    first, faster = (
        AutopilotStep(BASE),
        AutopilotStep({**BASE, **RATE}, RATE, source=0, kind="recommendation", code="learning_rate_too_low"),
    )
    wider = {"model": {"kind": "mlp", "hidden": [256, 128]}, **RATE}
    tried = [
        ran(first, 0.5, offers("learning_rate_too_low", RATE)),
        ran(faster, 0.4, offers("healthy")),
        ran(AutopilotStep({**BASE, **wider}, {"model": wider["model"]}, source=1, kind="heuristic", code="wider"), 0.3,
            offers("learning_rate_too_high", back)),
    ]  # fmt: skip
    step = next_step(BASE, tried, facts())
    assert isinstance(step, AutopilotStep)
    assert (step.source, step.kind) == (2, "heuristic")
    assert step.document["optimizer"] == RATE["optimizer"]


def test_next_step_follows_the_diagnosis_of_a_diverged_run() -> None:
    base = {**BASE, "optimizer": {"kind": "sgd", "lr": 50.0}}
    cure = {"optimizer": {"kind": "sgd", "lr": 0.1}}
    sick = offers("learning_rate_too_high", cure)
    tried, done = drive(lambda step: ran(step, None if step.source is None else 0.4, sick), base, budget=Budget(jobs=3))
    assert tried[1].step.document["optimizer"]["lr"] == 0.1
    assert tried[2].step.source == done.best == 1


def test_autopilot_without_any_metric_has_no_best_run() -> None:
    tried, done = drive(lambda step: ran(step, None), budget=Budget(jobs=4))
    assert [one.step.code for one in tried[1:]] == ["z_score", "lower_learning_rate", "batch_norm"]
    assert done.best is None


def test_next_step_after_out_of_memory_takes_the_smaller_spec_once() -> None:
    smaller = {"train": {"batch_size": 32, "gradient_accumulation_steps": 2}}
    error = {
        "code": "out_of_memory",
        "message": "no memory",
        "evidence": {"next_spec": {"patch": smaller, "why": "half"}},
    }

    def outcome(step: AutopilotStep) -> CompletedStep:
        roomy = step.source is None or step.code not in ("more_epochs_with_cosine", "out_of_memory")
        return ran(step, 0.4) if roomy else ran(step, None, error=error)

    tried, _ = drive(outcome)
    kinds = [one.step.kind for one in tried]
    place = kinds.index("less_memory")
    assert tried[place - 1].error == error
    assert tried[place].step.source == place - 1
    assert tried[place].step.document["train"]["gradient_accumulation_steps"] == 2
    assert "less_memory" not in kinds[place + 1 :]
    assert {one.step.source for one in tried[place + 1 :]} == {0}


def test_next_step_does_not_repeat_a_failed_recommendation_on_an_equal_run() -> None:
    def outcome(step: AutopilotStep) -> CompletedStep:
        decay = step.document.get("regularize", {}).get("weight_decay", 0.01)
        return ran(step, 0.4 - decay / 1e4, offers("overfitting", {"regularize": {"weight_decay": 3 * decay}}))

    tried, _ = drive(outcome)
    assert sum(one.step.kind == "recommendation" for one in tried) == 1


@pytest.mark.parametrize(("seconds", "jobs"), [(9.0, 1), (25.0, 2), (1000.0, 8)])
def test_next_step_respects_the_budget_of_seconds(seconds: float, jobs: int) -> None:
    cheap = offers("overfitting", DECAY)
    tried, done = drive(lambda step: ran(step, 0.4 if step.source is None else 0.5, cheap), budget=Budget(8, seconds))
    assert len(tried) == jobs
    assert done.reason == ("jobs_spent" if jobs == 8 else "seconds_spent")


def test_expected_seconds_scale_with_the_estimate() -> None:
    tried = [ran(AutopilotStep(BASE), 0.4)]
    twice = {"train": {"epochs": 40}}
    step = AutopilotStep({**BASE, **twice}, twice, source=0)
    assert History(tried, facts()).expected_seconds(step) == pytest.approx(20.0, rel=0.1)


def test_label_smoothing_is_compared_by_accuracy() -> None:
    patch = {"regularize": {"label_smoothing": 0.05}}
    smooth = AutopilotStep({**BASE, **patch}, patch, source=0, kind="heuristic", code="label_smoothing")
    metrics = {"val_loss": MetricEstimate(0.9, 0.01, 9), "val_accuracy": MetricEstimate(0.95, 0.01, 9)}
    history = History([ran(AutopilotStep(BASE), 0.4), CompletedStep(smooth, "succeeded", metrics)], facts())
    compared = history.compared(0, 1)
    assert (compared.metric, compared.outcome) == ("val_accuracy", "improved")
    assert compared.gain == pytest.approx(0.35)


def test_heuristics_add_no_flips_and_keep_a_pretrained_body() -> None:
    base = {**WITH_CNN, "start_from": {"job": "job_1", "freeze": "body"}}
    tried, _ = drive(lambda step: ran(step, 0.4), base, budget=Budget(jobs=40))
    assert all(set(one.step.document["model"]) <= {"kind", "dropout"} for one in tried)
    steps = [step["kind"] for one in tried for step in one.step.document.get("augment", ())]
    assert "translate" in steps
    assert not any("flip" in kind for kind in steps)


def test_autopilot_ends_without_a_validation_part() -> None:
    base = {**BASE, "split": "8:2"}
    tried, done = drive(lambda step: ran(step, None), base)
    assert (len(tried), done) == (1, AutopilotEnd("no_validation", None, None))


@pytest.mark.parametrize("kind", ["gradient_boosting", "rbf_svm"])
def test_autopilot_ends_for_scikit_learn_models(kind: str) -> None:
    tried, done = drive(
        lambda step: ran(step, 0.4),
        {"dataset": "ds_1", "model": {"kind": kind}},
        facts(kind="arrays", input_shape=(8,)),
    )
    assert (len(tried), done.reason, done.best) == (1, "nothing_to_train", 0)


def test_next_step_raises_for_a_spec_that_does_not_fit_the_dataset() -> None:
    with pytest.raises(SpecError):
        next_step({"dataset": "ds_1", "model": {"kind": "lstm"}}, [], facts())


def test_explain_describes_every_step() -> None:
    cured = offers("overfitting", DROPOUT)
    tried, done = drive(
        lambda step: ran(step, 0.5 if step.source is None else 0.4, cured if step.source is None else HEALTHY)
    )
    entries = explain(tried, facts())
    assert json.loads(json.dumps(entries)) == entries
    assert [entry["best"] for entry in entries] == [0] + [1] * 7
    assert entries[1]["observation"] == "It is overfitting."
    assert entries[1]["patch"] == DROPOUT
    assert entries[1]["measured"]["outcome"] == "improved"
    assert "0.5 -> 0.4" in entries[1]["text"]
    assert "It is the best so far." in entries[1]["text"]
    assert "best in epoch 20 of 20" in entries[2]["observation"]
    assert done.best == 1
