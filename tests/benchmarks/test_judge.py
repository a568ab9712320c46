"""Effects by pairs, answers, and the report; and two cases from their seeds to the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.diagnosis import examination as examinations
from benchmarks.diagnosis import trial as trials
from benchmarks.diagnosis.baselines import BASELINES
from benchmarks.diagnosis.command import main, seeds
from benchmarks.diagnosis.effects import MeasuredEffect, has_effect, measured_effect, paired, paired_recall
from benchmarks.diagnosis.generator import planted_case
from benchmarks.diagnosis.judge import Opinion, Result, answer, judge_case, wrong_and_sure
from benchmarks.diagnosis.report import report, share
from benchmarks.diagnosis.trial import Aside, Trial, trial
from tests.support.diagnosis_records import record

EPOCHS = 10
CURVE = {"train_loss": np.linspace(1, 0.2, EPOCHS), "val_loss": np.linspace(1, 0.4, EPOCHS)}
TRUTH = np.repeat([0, 1, 2], [700, 250, 50])


def run_of(right: Any, loss: Any = None, **changes: Any) -> Trial:
    """A run with these answers on 1000 samples aside."""
    right = np.asarray(right, np.float64)
    series = {**CURVE, "val_loss_se": np.full(EPOCHS, 0.02), **changes}
    ended = record(**{name: list(values) for name, values in series.items()})  # type: ignore[arg-type]
    return Trial(ended, Aside(right, np.full(len(right), 0.5) if loss is None else loss, TRUTH), 1.0, False)


def test_a_gain_is_by_pairs() -> None:
    random = np.random.default_rng(0)
    before = (random.random(1000) < 0.7).astype(float)
    after = before.copy()
    after[np.flatnonzero(before == 0)[:20]] = 1.0
    effect = paired("accuracy", before, after)
    assert effect.gain == pytest.approx(0.02)
    assert effect.outcome == "better"
    # The same shares of right answers, unpaired, could not be told apart.
    assert paired("accuracy", before, random.permutation(after)).outcome == "within_noise"
    assert paired("accuracy", after, before).outcome == "worse"


def test_the_interval_of_a_gain_holds_the_true_one_in_95_of_100() -> None:
    random, held = np.random.default_rng(1), 0
    for _ in range(400):
        before = (random.random(300) < 0.7).astype(float)
        after = np.where(random.random(300) < 0.2, random.random(300) < 0.9, before)
        effect = paired("accuracy", before, after.astype(float))
        held += effect.low <= 0.2 * (0.9 - 0.7) <= effect.high
    assert 0.92 <= held / 400 <= 0.98


def test_a_fault_without_a_material_effect_has_none() -> None:
    twin = np.ones(1000)
    barely, clearly = twin.copy(), twin.copy()
    barely[:7], clearly[:60] = 0.0, 0.0
    assert not has_effect("learning_rate_too_high", run_of(barely), run_of(twin))[0]
    assert has_effect("learning_rate_too_high", run_of(clearly), run_of(twin))[0]


def test_a_rare_class_counts_as_much_as_the_others() -> None:
    twin, faulty = np.ones(1000), np.ones(1000)
    faulty[-50:] = 0.0
    effect = measured_effect("class_imbalance", run_of(faulty), run_of(twin))
    assert effect.metric == "recall"
    assert effect.gain == pytest.approx(1 / 3)


def test_overfitting_shows_in_the_rise_of_the_loss_where_the_kept_weights_are_as_good() -> None:
    answers = np.r_[np.ones(900), np.zeros(100)]
    rising = np.r_[np.linspace(1, 0.4, 5), np.linspace(0.5, 1.2, 5)]
    error = np.full(EPOCHS, 0.05)
    faulty, twin = run_of(answers, val_loss=rising, val_loss_rise_se=error), run_of(answers, val_loss_rise_se=error)
    effect = measured_effect("overfitting", faulty, twin)
    assert (effect.metric, effect.before, effect.after) == ("rise of val_loss", pytest.approx(2.0), 0.0)
    assert has_effect("overfitting", faulty, twin)[0]
    assert not has_effect("overfitting", twin, faulty)[0]


def result_of(truth: str, effective: list[str], *opinion: Any) -> Result:
    """A result with one passive opinion: codes, confidences, suspects."""
    planted = [
        {"code": code, "strength": "clear", "what": "x", "effective": True, "effect": EFFECT.as_dict()}
        for code in effective or (["overfitting"] if truth == "no effect" else [])
    ]
    opinions = {"passive": Opinion(*opinion)}
    silent: dict[str, list[list[str]]] = {name: [] for name in BASELINES}
    return Result(0, "a case", truth, effective, planted, opinions, [], None, silent, "ordinary", 1.0, False)  # type: ignore[arg-type]


EFFECT = MeasuredEffect("accuracy", 0.5, 0.9, 0.4, 0.3, 0.5)


@pytest.mark.parametrize(
    ("opinion", "expected"),
    [
        ((["overfitting", "label_noise"], [0.9, 0.5], []), "first"),
        ((["label_noise", "overfitting"], [0.9, 0.5], []), "later"),
        ((["inconclusive"], [0.9], ["overfitting"]), "suspect"),
        ((["inconclusive"], [0.9], ["label_noise"]), "inconclusive"),
        ((["healthy"], [0.9], ["overfitting"]), "healthy"),
        ((["label_noise"], [0.9], ["overfitting"]), "wrong"),
    ],
)
def test_answers(opinion: Any, expected: str) -> None:
    result = result_of("faulty", ["overfitting"], *opinion)
    assert answer(result, result.opinions["passive"]) == expected


@pytest.mark.parametrize(
    ("truth", "named", "confidence", "expected"),
    [
        ("faulty", "healthy", 0.9, True),
        ("faulty", "healthy", 0.8, False),
        ("faulty", "inconclusive", 0.9, False),
        ("faulty", "overfitting", 0.9, False),
        ("sound", "label_noise", 0.9, True),
        ("sound", "healthy", 0.9, False),
        ("no effect", "overfitting", 0.9, False),
        ("no effect", "label_noise", 0.9, True),
    ],
)
def test_wrong_and_sure(truth: str, named: str, confidence: float, expected: bool) -> None:
    result = result_of(truth, ["overfitting"] if truth == "faulty" else [], [named], [confidence], [])
    assert wrong_and_sure(result, result.opinions["passive"]) is expected


def test_the_report_counts() -> None:
    results = [
        result_of("faulty", ["overfitting"], ["overfitting"], [0.9], []),
        result_of("faulty", ["overfitting"], ["inconclusive"], [0.9], ["overfitting"]),
        result_of("sound", [], ["label_noise"], [0.9], []),
        result_of("sound", [], ["inconclusive"], [0.9], []),
        result_of("no effect", [], ["healthy"], [0.9], []),
    ]
    text = report([*results], {"seeds": "0:5"})
    for line in (
        f"| planted fault named first | {share(1, 2)} |",
        f"| named first, or inconclusive with it among the suspects | {share(2, 2)} |",
        f"| false alarms on sound runs | {share(1, 2)} |",
        f"| wrong and sure (> 0.8), of all | {share(1, 5)} |",
        f"| no effect: healthy or inconclusive | {share(1, 1)} |",
        "| overfitting | 2 | 1 | 2 | 1 | 0 | 0 | 0 |",
    ):
        assert line in text, text


def test_a_share_has_wilsons_interval() -> None:
    assert share(9, 10) == "9 of 10, 90 % (60 to 98)"
    assert share(0, 0) == "-"


@pytest.mark.parametrize("text", ["5", "5:5", "a:b", ":4", "7:3"])
def test_seeds_that_are_no_range_are_refused(text: str) -> None:
    with pytest.raises(Exception, match="seeds are FIRST:END"):
        seeds(text)


@pytest.mark.parametrize(
    "arguments", [["--seeds", "1544:1545"], ["--seeds", "0:2", "--final"], ["--seeds", "1543:1545"]]
)
def test_seeds_of_the_final_figure_need_final_and_take_no_others(arguments: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert "final figure" in capsys.readouterr().err


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(trials, "CACHE", tmp_path)
    return tmp_path


def small_case(code: str) -> Any:
    """A case of that fault, gross, on a dataset that scikit-learn carries, of some seed."""
    for seed in range(100):
        one = planted_case(seed, np.random.default_rng(seed), [code], ["gross"])
        if one.recipe["dataset"] in ("wine", "breast_cancer") and one.document["model"]["kind"] == "mlp":
            return one
    raise AssertionError(code)


def test_a_case_is_judged_and_kept_in_the_cache(scratch: Path) -> None:
    one = small_case("learning_rate_too_low")
    result = judge_case(one)
    assert result.truth == "faulty"
    assert result.effective == ["learning_rate_too_low"]
    assert result.planted[0]["effect"]["outcome"] == "better"
    assert result.twin
    again = judge_case(one)
    assert again.cached
    assert not result.cached
    assert again.effective == result.effective
    assert again.opinions["passive"].effect == result.opinions["passive"].effect
    assert list(scratch.glob("*.part")) == []
    json.dumps(result.as_dict())
    assert "learning_rate_too_low" in report([result], {})


def test_records_that_were_kept_are_judged_again_without_training(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, folder = small_case("learning_rate_too_low"), tmp_path / "records"
    first = judge_case(one, recommend=False, records=folder)
    monkeypatch.setattr(examinations, "trial", lambda *_arguments, **_options: pytest.fail("it was trained again"))
    again = judge_case(one, recommend=False, records=folder)
    assert again.opinions["passive"].named == first.opinions["passive"].named
    assert (again.truth, again.effective, again.twin) == (first.truth, first.effective, first.twin)
    assert again.baselines == first.baselines
    with pytest.raises(pytest.fail.Exception, match="trained again"):  # another case of the same seed
        judge_case(replace(one, document={**one.document, "name": "b"}), recommend=False, records=folder)


def test_a_run_that_gives_up_a_small_class_is_not_sound() -> None:
    truth = np.repeat([0, 1], [190, 10])
    given_up = (truth == 0).astype(float)
    assert paired("score", given_up, np.ones(200)).gain == pytest.approx(0.05)
    recall = paired_recall(given_up, np.ones(200), truth)
    assert (recall.before, recall.after, recall.outcome) == (0.5, 1.0, "better")


def test_a_run_that_diverges_answers_as_a_constant(scratch: Path) -> None:
    document = {
        "dataset": "d",
        "model": {"kind": "mlp", "hidden": [16]},
        "optimizer": {"kind": "sgd", "lr": 900.0},
        "preprocess": [],
        "train": {"epochs": 3, "threads": 1},
        "resources": {"device": "cpu"},
    }
    run = trial({"dataset": "diabetes", "seed": 3, "n": 200, "form": "arrays"}, document)
    assert run.record.state == "failed"
    assert run.aside.score.mean() == pytest.approx(0.0, abs=1e-4)  # the mean of the targets explains nothing
