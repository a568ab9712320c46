"""Investigations of small runs with a planted fault, on data that scikit-learn carries."""

from __future__ import annotations

import importlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import torch

import trainkit as tk
from trainkit.data import Dataset, load_dataset
from trainkit.diagnose.investigation import InvestigationBudget
from trainkit.fit.fit_and_diagnose import fit_and_diagnose
from trainkit.fit.investigate import Investigation, investigate
from trainkit.spec import SpecError

JOBS = InvestigationBudget(seconds=None, jobs=17)
ENOUGH = InvestigationBudget(seconds=None, jobs=26)
COMMON: dict[str, Any] = {
    "dataset": "d",
    "resources": {"device": "cpu"},
    "split": {"train": 6, "validation": 2, "test": 2},
}


@cache
def digits(n: int = 400) -> Dataset:
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    return Dataset.from_arrays((x[:n] / 16).astype(np.float32), y[:n])


@cache
def diabetes() -> Dataset:
    x, y = sklearn.datasets.load_diabetes(return_X_y=True)
    return Dataset.from_arrays((10 * x).astype(np.float32), y)


def document(epochs: int = 8, **sections: Any) -> dict[str, Any]:
    model = {"kind": "mlp", "hidden": [32]}
    return {**COMMON, "model": model, "train": {"epochs": epochs, "batch_size": 32, "threads": 1}, **sections}


def rate(lr: float, kind: str = "adam") -> dict[str, Any]:
    return {"optimizer": {"kind": kind, "lr": lr}}


SLOW = document(**rate(1e-5))


@pytest.mark.parametrize(
    ("spec", "code", "gains"),
    [
        (SLOW, "learning_rate_too_low", 0.3),
        (document(**rate(1.0)), "learning_rate_too_high", 0.3),
        (
            document(model={"kind": "mlp", "hidden": [32, 16], "init": {"kind": "zeros"}}),
            "symmetric_initialization",
            0.3,
        ),
        (document(regularize={"weight_decay": 100.0}), "underfitting_model_bias", 0.3),
    ],
)
def test_planted_fault_is_named_by_what_repairs_it(spec: dict[str, Any], code: str, gains: float) -> None:
    found = investigate(spec, digits(), budget=JOBS).findings
    assert found.verdicts[0].code == code
    first = found.recommendations[0]
    assert first.code == code
    repaired = tk.fit(first.spec, digits()).evaluation
    broken = fit_and_diagnose(spec, digits()).result
    before = 0.1 if broken is None or broken.evaluation is None else broken.evaluation["metrics"]["accuracy"]
    assert repaired is not None
    assert (
        repaired["metrics"]["accuracy"] > before + gains
    )  # on the test part, which the investigation does not look at


def test_numbers_are_judged_by_squared_errors() -> None:
    found = investigate(document(15, **rate(1e-5)), diabetes(), budget=JOBS).findings
    assert found.verdicts[0].code == "learning_rate_too_low"
    assert found.recommendations[0].measured["metric"] == "val_loss"
    assert found.recommendations[0].measured["low"] > 0


def test_sound_run_is_healthy() -> None:
    spec = document(20, model={"kind": "mlp", "hidden": [48]}, **rate(3e-3))
    found = investigate(spec, digits(700), budget=JOBS).findings
    assert found.verdicts[0].code == "healthy"


def test_balancing_is_judged_by_recall() -> None:
    x, y = sklearn.datasets.load_breast_cancer(return_X_y=True)
    weak = x[:, [9, 14, 18, 4, 8]]
    kept = np.concatenate([np.flatnonzero(y == 1), np.flatnonzero(y == 0)[:50]])
    data = Dataset.from_arrays(weak[kept].astype(np.float32), y[kept])
    split = {"train": 4, "validation": 5, "test": 1}
    spec = document(15, preprocess=[{"kind": "z_score"}], split=split, **rate(5e-3))
    found = investigate(spec, data, budget=JOBS).findings
    named = {one.code: one for one in found.verdicts}
    assert "class_imbalance" in named
    assert named["class_imbalance"].evidence["metric"] == "val_recall"
    assert named["class_imbalance"].evidence["low"] > 0


def test_balancing_is_validated_over_folds_where_a_class_has_one_sample_in_validation() -> None:
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    kept = np.concatenate([np.flatnonzero(y == name)[: 7 if name in (1, 3, 8) else 80] for name in range(10)])
    data = Dataset.from_arrays((x[kept] / 16).astype(np.float32), y[kept])
    found = investigate(document(15, **rate(3e-3)), data, budget=ENOUGH)
    named = {one.code: one for one in found.findings.verdicts}
    assert "class_imbalance" in named
    folds = [one.name for one in found.variants if one.kind == "folds"]
    assert len(folds) >= 6
    evidence = named["class_imbalance"].evidence
    assert evidence["samples"] > 4 * len(found.results[0].scores.index) - 30  # all but the test part
    assert evidence["low"] > 0


def test_wrong_labels_are_told_by_votes() -> None:
    random = np.random.default_rng(0)
    x, y = (part[:1200] for part in sklearn.datasets.load_digits(return_X_y=True))
    drawn = random.random(len(y)) < 0.35
    noisy = np.where(drawn, random.integers(0, 10, len(y)), y)
    data = Dataset.from_arrays((x / 16).astype(np.float32), noisy)
    spec = document(12, model={"kind": "mlp", "hidden": [64]}, **rate(3e-3))
    found = investigate(spec, data, budget=ENOUGH)
    named = {one.code: one for one in found.findings.verdicts}
    assert "label_noise" in named
    assert any(variant.kind == "folds" for variant in found.variants)
    suspects = named["label_noise"].evidence["suspects"]
    assert float((noisy != y)[list(suspects)].mean()) > 0.85


def test_same_input_gives_the_same_findings_bit_for_bit() -> None:
    few = InvestigationBudget(seconds=None, jobs=6)
    one, other = (investigate(SLOW, digits(), budget=few) for _ in range(2))
    assert json.dumps(one.findings.as_dict()) == json.dumps(other.findings.as_dict())


class StopAt:
    """Asks for a command at the n-th question."""

    def __init__(self, action: str, question: int) -> None:
        self.action, self.last, self.questions = action, question, 0

    def command(self) -> dict[str, Any] | None:
        self.questions += 1
        return {"action": self.action} if self.questions >= self.last else None


@pytest.mark.parametrize(("action", "outcome"), [("pause", "paused"), ("hand_back", "handed_back")])
def test_interrupted_investigation_goes_on_with_the_same_findings(action: str, outcome: str) -> None:
    few = InvestigationBudget(seconds=None, jobs=6)
    states: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []

    def keep(event: dict[str, Any]) -> None:
        events.append(event)
        if event["type"] == "investigation_state":
            states.append(json.loads(json.dumps(event["state"])))

    halted = investigate(SLOW, digits(), budget=few, control=StopAt(action, 260), on_event=keep)
    assert halted.outcome == outcome
    assert 0 < len(halted.variants) < 6
    as_one = most_at_once(events)  # dropped together, and trained together again
    assert len(as_one) > 1
    assert not set(as_one) & {variant.name for variant in halted.variants}
    assert json.loads(json.dumps(halted.state)) == states[-1]
    resumed = investigate(SLOW, digits(), budget=few, state=states[-1])
    whole = investigate(SLOW, digits(), budget=few)
    assert json.dumps(resumed.findings.as_dict()) == json.dumps(whole.findings.as_dict())


def test_a_variant_whose_process_died_is_a_result_and_the_next_follows() -> None:
    """Of several that trained as one it is not known which: they train one by one first, and the error is nobody's."""
    few = InvestigationBudget(seconds=None, jobs=4)
    base = investigate(SLOW, digits(), budget=InvestigationBudget(seconds=None, jobs=1))
    error = {"code": "out_of_memory", "message": "the machine's memory ran out"}
    states: list[dict[str, Any]] = []
    trained: list[tuple[str, str]] = []

    def keep(event: dict[str, Any]) -> None:
        if event["type"] == "investigation_state":
            states.append(json.loads(json.dumps(event["state"])))
        elif event["type"] == "variant":
            trained.append((event["state"], event["name"]))

    first = investigate(SLOW, digits(), budget=few, state=base.state, lost=error, on_event=keep)
    names = [variant.name for variant in first.variants]
    assert trained == [(state, name) for name in names[1:] for state in ("running", "succeeded")]
    assert [len(state["results"]) for state in states] == [1, 2, 3, 4]
    found = investigate(SLOW, digits(), budget=few, state=states[0], lost=error)
    assert [result.state for result in found.results] == ["succeeded", "failed", "succeeded", "succeeded"]
    assert found.results[1].error == error
    assert [variant.name for variant in found.variants] == names
    assert names[1] not in [one["change"] for one in found.findings.tried]


def one_by_one(state: dict[str, Any]) -> dict[str, Any]:
    """The state of an investigation in which no variants train as one."""
    return {**state, "one_by_one": True}


def most_at_once(events: list[dict[str, Any]]) -> list[str]:
    """The variants that were in training at the same time, of the moment at which they were the most."""
    running: list[str] = []
    most: list[str] = []
    for event in events:
        if event["type"] == "variant" and event["state"] == "running":
            running.append(event["name"])
        elif event["type"] == "variant":
            running.remove(event["name"])
        most = max(most, list(running), key=len)
    return most


def test_variants_that_train_as_one_are_those_of_one_by_one() -> None:
    spec = document(4, regularize={"weight_decay": 1e-2}, **rate(1e-3))
    base = investigate(spec, digits(), budget=InvestigationBudget(seconds=None, jobs=1))
    budget = InvestigationBudget(seconds=None, jobs=15)
    events: list[dict[str, Any]] = []
    together = investigate(spec, digits(), budget=budget, state=base.state, on_event=events.append)
    apart = investigate(spec, digits(), budget=budget, state=one_by_one(base.state))
    as_one = most_at_once(events)
    assert {"rate_tenth", "longer", "base-seed", "no_penalties"} <= set(as_one)
    expected = {result.variant.name: result for result in apart.results}
    for result in together.results:
        other = expected[result.variant.name]
        assert result.metrics == pytest.approx(other.metrics, rel=1e-4, abs=1e-5)
        assert result.scores is not None
        assert other.scores is not None
        np.testing.assert_allclose(result.scores.loss, other.scores.loss, rtol=1e-3, atol=1e-4)
        assert result.series.keys() == other.series.keys()
    seconds = {result.variant.name: result.seconds for result in together.results}
    assert seconds["longer"] > 2 * seconds["rate_tenth"]  # by their steps


def test_a_variant_that_diverges_leaves_those_that_train_with_it_alone() -> None:
    spec = document(6, model={"kind": "mlp", "hidden": [32, 32], "activation": "linear"}, **rate(0.1, "sgd"))
    base = investigate(spec, diabetes(), budget=InvestigationBudget(seconds=None, jobs=1))
    events: list[dict[str, Any]] = []
    budget = InvestigationBudget(seconds=None, jobs=9)
    found = investigate(spec, diabetes(), budget=budget, state=base.state, on_event=events.append)
    as_one = most_at_once(events)
    states = {result.variant.name: result for result in found.results}
    diverged = [name for name in as_one if states[name].diverged]
    assert "rate_tenfold" in diverged
    assert any(states[name].scores is not None for name in as_one)
    assert json.loads(json.dumps(found.findings.as_dict()))


@pytest.mark.parametrize("last", ["shared step", "different shapes"])
def test_what_cannot_train_as_one_goes_one_by_one(last: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running out of memory together is an error of none of them."""

    def fail(*_: Any) -> None:
        raise MemoryError("no memory for all of them")

    module = importlib.import_module("trainkit.fit.investigate")
    if last == "shared step":
        monkeypatch.setattr(module, "train_together", fail)
    else:
        monkeypatch.setattr(module, "obstacle", lambda _: "their preprocessing leaves networks of different shapes")
    few = InvestigationBudget(seconds=None, jobs=4)
    events: list[dict[str, Any]] = []
    found = investigate(SLOW, digits(), budget=few, on_event=events.append)
    assert [result.state for result in found.results] == ["succeeded"] * 4
    assert found.state["one_by_one"] is True
    assert any(event["type"] == "log" and "one by one" in event["message"] for event in events)


def test_a_run_that_takes_longer_than_what_is_left_is_ended() -> None:
    """A clock that stands still while the base is trained, and then runs fast."""
    readings: list[float] = []

    def clock() -> float:
        readings.append(max(0.0, len(readings) - 3) * 1.0)
        return readings[-1]

    found = investigate(SLOW, digits(), budget=InvestigationBudget(seconds=5), clock=clock)
    base, *others = found.results
    assert base.state == "succeeded"
    assert len(others) > 1
    assert {(result.error or {})["code"] for result in others} == {"out_of_time"}
    assert 5 < sum(result.seconds for result in others) <= 15
    assert found.outcome == "finished"


def test_those_that_ended_before_the_time_was_up_are_results() -> None:
    """Of several that train as one the longest is still going: the clock jumps when it is past the epochs of the others."""
    is_late: list[bool] = []

    def note(event: dict[str, Any]) -> None:
        if event["type"] == "metrics" and event["variant"] == "longer" and event["epoch"] > SLOW["train"]["epochs"]:
            is_late.append(True)

    found = investigate(
        SLOW,
        digits(),
        budget=InvestigationBudget(seconds=5),
        clock=lambda: 100.0 if is_late else 0.0,
        on_event=note,
    )
    results = {result.variant.name: result for result in found.results}
    assert (results["longer"].error or {})["code"] == "out_of_time"
    assert {name for name, result in results.items() if result.state == "failed"} == {"longer"}
    assert results["standard_rate"].scores is not None
    assert sum(result.seconds for result in found.results) == pytest.approx(100)


def test_stop_concludes_with_what_is_known() -> None:
    stopped = investigate(SLOW, digits(), budget=JOBS, control=StopAt("stop", 900))
    assert stopped.outcome == "stopped"
    assert "standard_rate" in [one["change"] for one in stopped.findings.tried]
    assert stopped.findings.verdicts


def test_events_name_the_variant_and_weights_can_be_loaded(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    few = InvestigationBudget(seconds=None, jobs=4)
    found = investigate(SLOW, digits(), budget=few, on_event=events.append, workdir=tmp_path)
    json.dumps(events)
    json.dumps(found.as_dict())
    names = [variant.name for variant in found.variants]
    assert [e["name"] for e in events if e["type"] == "variant" and e["state"] == "running"] == names
    assert {e["variant"] for e in events if e["type"] == "metrics"} == set(names)
    assert sum(e["type"] == "runtime" for e in events) == 1
    assert events[-1]["type"] == "findings"
    kept = {result.variant.name: result.artifact for result in found.results}
    assert kept["base"] is None
    assert kept["standard_rate"] == "variants/standard_rate"
    model = tk.load_model(tmp_path / "variants/standard_rate")
    assert len(model.predict(np.asarray(digits().inputs.values[:3]))) == 3  # type: ignore[union-attr]


def test_record_of_the_run_is_taken_as_it_is() -> None:
    run = fit_and_diagnose(SLOW, digits())
    few = InvestigationBudget(seconds=None, jobs=3)
    found: Investigation = investigate(SLOW, digits(), record=run.record, budget=few)
    assert found.record.series == run.record.series


def test_base_repeats_the_run_itself() -> None:
    """Variants are trained as `fit` trains them: the same bits."""
    base = investigate(SLOW, digits(), budget=InvestigationBudget(seconds=None, jobs=1)).results[0]
    alone = tk.fit(SLOW, digits())
    assert alone.evaluation is not None
    assert base.metrics["val_loss"] == alone.evaluation["parts"]["val"]["loss"]
    assert base.scores is not None
    assert base.scores.value("val_accuracy") == pytest.approx(base.metrics["val_accuracy"])
    assert base.scores.value("val_recall") == pytest.approx(base.metrics["val_recall"])
    assert base.scores.value("val_loss") == pytest.approx(base.metrics["val_loss"], rel=1e-4)


def test_refusals() -> None:
    with pytest.raises(SpecError, match="no training to vary"):
        investigate({**COMMON, "model": "gradient_boosting"}, digits())
    with pytest.raises(SpecError, match=r"split\.validation is 0"):
        investigate({**SLOW, "split": "8:2"}, digits())
    state = investigate(SLOW, digits(), budget=InvestigationBudget(seconds=None, jobs=1)).state
    with pytest.raises(ValueError, match="another spec"):
        investigate({**SLOW, "train": {"epochs": 3}}, digits(), state=state)
    with pytest.raises(ValueError, match="version 0"):
        investigate(SLOW, digits(), state={**state, "version": 0})


def test_threads_and_generator_are_left_as_they_were() -> None:
    threads, drawn = torch.get_num_threads(), torch.random.get_rng_state()
    investigate(SLOW, digits(), budget=InvestigationBudget(seconds=None, jobs=2))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_numbers_that_name_classes_are_found_by_training_classes(tmp_path: Path) -> None:
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    rows = [
        "a,b,c,d,e,f,code",
        *(",".join(f"{v:g}" for v in (*row, code)) for row, code in zip(_few(x), y, strict=True)),
    ]
    file = tmp_path / "codes.csv"
    file.write_text("\n".join(rows))
    data = load_dataset(file, target="code")
    spec = document(
        30, task="regression", dataset={"id": "d", "target": "code"}, preprocess=[{"kind": "z_score"}], **rate(3e-3)
    )
    found = investigate(spec, data, budget=JOBS)
    assert found.findings.verdicts[0].code == "wrong_loss"
    first = found.findings.recommendations[0]
    assert first.patch["task"] == "classification"
    assert first.measured["metric"] == "val_r2"
    assert first.measured["low"] > 0
    base, classes = (next(r for r in found.results if r.variant.name == name) for name in ("base", "as_classes"))
    assert base.scores is not None
    assert classes.scores is not None
    assert np.array_equal(base.scores.index, classes.scores.index)
    assert np.allclose(base.scores.truth, classes.scores.truth)


def _few(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Six numbers of each image: its directions of most variance."""
    centred = x - x.mean(0)
    return centred @ np.linalg.svd(centred, full_matrices=False)[2][:6].T
