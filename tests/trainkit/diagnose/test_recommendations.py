"""Recommendations: valid specs for every verdict and all example specs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.diagnosis_records import facts, falling, record, well
from trainkit.diagnose.causes import CAUSES, EXPLAINS
from trainkit.diagnose.diagnosis import diagnose, order_by_cause
from trainkit.diagnose.recommendations import MAX_RECOMMENDATIONS, recommend
from trainkit.diagnose.verdicts import Verdict, graded_confidence
from trainkit.spec import DatasetFacts, JobSpec, resolve
from trainkit.spec.patch import merge_patch, replacing

EXAMPLES = sorted(Path(__file__).parents[3].joinpath("examples", "specs").glob("*.yaml"))
CANCER = [{"name": f"m{k}", "type": "numeric", "unique": 500} for k in range(30)]
KIND = [{"name": "diagnosis", "type": "categorical", "unique": 2, "categories": {"b": 300, "m": 269}}]
HOUSES = [{"name": name, "type": "numeric", "unique": 900} for name in ("rooms", "age", "MedHouseVal")]
INCOME = [
    {"name": "age", "type": "numeric", "unique": 70, "missing": 3},
    {"name": "income", "type": "categorical", "unique": 2, "categories": {"<": 800, ">": 200}},
]
OF: dict[str, DatasetFacts] = {
    "adult": DatasetFacts.model_validate({"kind": "table", "samples": 1000, "columns": INCOME}),
    "california": DatasetFacts.model_validate({"kind": "table", "samples": 1000, "columns": HOUSES}),
    "cancer": DatasetFacts.model_validate(
        {"kind": "table", "samples": 569, "target": "diagnosis", "columns": CANCER + KIND}
    ),
    "images": facts(kind="image_table", input_shape=(3, 32, 32), target="label", columns=INCOME[:1]),
    "vowels": facts(kind="sequences", input_shape=(29, 12), input_dtype="float32", lengths=(7, 29)),
    "digits": facts(),
    "fashion": facts(input_shape=(1, 28, 28), splits={"train": 1600, "test": 400}),
    "stamps": facts(input_shape=(3, 96, 96)),
}
VERDICTS = list(CAUSES)


def facts_of(path: Path, document: dict[str, Any]) -> tuple[dict[str, Any], DatasetFacts]:
    """The example with an id in its dataset's place, and facts that fit it."""
    found = OF[path.stem.split("-")[0]]
    named = document["dataset"]
    if isinstance(named, dict):
        document = {**document, "dataset": {**named, "id": "ds_1"}}
    else:
        target = {"cancer": "diagnosis", "california": "MedHouseVal"}.get(path.stem.split("-")[0])
        document = {**document, "dataset": {"id": "ds_1", "target": target} if target else "ds_1"}
    if (start := document.get("start_from")) is not None:
        document = {**document, "start_from": {**start, "dataset": "ds_2"}}
    return document, found


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_recommend_gives_valid_specs(path: Path) -> None:
    document, about = facts_of(path, yaml.safe_load(path.read_text()))
    source = record(document, about)
    offered = set()
    for code in VERDICTS:
        for offer in CAUSES[code].recommendations(source):
            # what its author meant to be a spec is one, but for those that this model or task cannot have
            assert set(offer.patch) <= set(JobSpec.model_fields), offer
        for following in recommend(source, [Verdict(code, 0.9, 1, "")]):
            offered.add(code)
            assert following.spec == merge_patch(document, following.patch)
            resolve(following.spec, about)
            assert following.spec != document
            assert set(following.expected) == {"metric", "direction", "size", "source"}
            assert all(following.expected.values())
            assert following.why.endswith(".")
    # of the rest: symmetry needs layers that begin so, leakage and wrong losses what this spec does not have
    expected = {
        "learning_rate_too_high",
        "learning_rate_too_low",
        "stopped_too_early",
        "optimization_failure",
        "overfitting",
    }
    assert expected | {"exploding_gradients", "distribution_mismatch", "validation_too_small"} <= offered


def test_causes_are_consistent() -> None:
    for name, cause in CAUSES.items():
        assert cause.code == name
        assert cause.explains <= set(CAUSES) - {name}
    assert len(CAUSES) >= 18


def test_recommend_for_each_verdict() -> None:
    def first(code: Any, spec: dict[str, Any]) -> dict[str, Any]:
        return recommend(record(spec), [Verdict(code, 0.9, 1, "")])[0].patch

    zeros = {"model": {"kind": "mlp", "init": {"kind": "uniform", "low": 0.1, "high": 0.1000000001}}}
    assert first("symmetric_initialization", zeros) == {
        "model": {"kind": "mlp", "init": {"low": None, "high": None, "kind": "he_normal"}}
    }
    sgd = {"optimizer": {"kind": "sgd", "lr": 5.0}}
    assert first("learning_rate_too_high", sgd) == {"optimizer": {"kind": "sgd", "lr": 0.1}}
    assert first("learning_rate_too_high", {}) == {"optimizer": {"kind": "adam", "lr": 1e-4}}
    assert first("learning_rate_too_low", {"optimizer": {"kind": "adam", "lr": 1e-6}})["optimizer"]["lr"] == 1e-3
    assert first("unscaled_inputs", {"preprocess": [{"kind": "pca"}]})["preprocess"][0] == {"kind": "z_score"}
    assert first("validation_too_small", {"split": "8:1:1"})["split"]["validation"] == 2.0
    assert first("stopped_too_early", {"train": {"epochs": 7}}) == {"train": {"epochs": 14}}
    assert first("wrong_loss", {"loss": {"kind": "mse"}}) == {"loss": {"kind": "cross_entropy"}}
    assert first("leakage", {}) == {"split": {"duplicates": "drop"}}
    # a thousand steps forget what no gradient holds: decay 1e-3 / lr
    held = first("overfitting", {"optimizer": {"kind": "sgd", "lr": 0.05}, "augment": [{"kind": "noise"}]})
    assert held == {"regularize": {"weight_decay": 0.02, "l2": 0}, "model": {"kind": "mlp", "dropout": 0.5}}
    assert first("label_noise", {"optimizer": {"kind": "sgd", "lr": 0.05}}) == held
    deep = {"model": {"kind": "mlp", "hidden": [16] * 12}}
    for code in ("optimization_failure", "vanishing_gradients"):
        assert first(code, deep) == {"model": {"kind": "mlp", "hidden": [16, 16]}}


def test_recommend_sets_the_rate_by_the_record() -> None:
    def offered(code: Any, spec: dict[str, Any], **series: Any) -> list[dict[str, Any]]:
        return [one.patch for one in recommend(record(spec, **well(**series)), [Verdict(code, 0.9, 1, "")])]

    adam = {"optimizer": {"kind": "adam", "lr": 0.3}}
    some = {"train_loss": falling(2.0, 0.8), "val_loss": falling(2.0, 0.9), "train_weight_norm": [100.0] * 12}
    steps = 0.3 * math.sqrt(record(adam).parameters or 0) / 100
    rate = offered("learning_rate_too_high", adam, train_lr=[0.3] * 12, **some)[0]["optimizer"]["lr"]
    assert rate == pytest.approx(0.3 * 0.005 / steps, rel=0.005)
    # where nothing is learnt such steps have led nowhere: the usual rate
    flat = {"train_loss": [2.31] * 12, "val_loss": [2.31] * 12, "train_weight_norm": [100.0] * 12}
    assert offered("learning_rate_too_high", adam, train_lr=[0.3] * 12, **flat)[0]["optimizer"]["lr"] == 1e-3
    gone = {"schedule": {"kind": "exponential", "gamma": 0.1}}
    assert offered("learning_rate_too_low", gone, train_lr=[1e-6] * 12)[0]["schedule"]["kind"] == "constant"


def test_recommend_keeps_ratios_written_as_text() -> None:
    changed = recommend(record({"split": "6:2:2"}), [Verdict("distribution_mismatch", 0.9, None, "")])
    cut = next(one.spec["split"] for one in changed if "split" in one.patch)
    assert (cut["train"], cut["validation"], cut["test"]) == (6.0, 2.0, 2.0)


def test_recommend_skips_explained_verdicts() -> None:
    flat = {"train_loss": [2.31] * 12, "val_loss": [2.31] * 12}
    found = diagnose(record({"model": {"kind": "mlp", "init": {"kind": "zeros"}}}, **well(**flat)))
    assert {one.code for one in found.recommendations} == {"symmetric_initialization"}
    assert len(found.recommendations) <= MAX_RECOMMENDATIONS
    assert list(found.as_dict()["recommendations"][0]) == ["patch", "spec", "why", "expected", "code"]
    assert diagnose(record(**well(val_loss=falling(2.0, 0.9)))).recommendations[0].code == "overfitting"


def test_order_by_cause_then_confidence() -> None:
    def order(*codes: tuple[Any, float]) -> list[str]:
        return [v.code for v in order_by_cause([Verdict(code, confidence, 1, "") for code, confidence in codes])]

    chain = (
        ("optimization_failure", 0.99),
        ("dead_units", 0.8),
        ("learning_rate_too_high", 0.6),
        ("unscaled_inputs", 0.55),
    )
    assert order(*chain) == ["unscaled_inputs", "learning_rate_too_high", "dead_units", "optimization_failure"]
    assert order(("dead_units", 0.4), ("optimization_failure", 0.6)) == ["optimization_failure", "dead_units"]
    # where validation cannot be trusted, what is read off it waits; of two that explain nothing the surer goes first
    assert order(("leakage", 0.7), ("overfitting", 0.9)) == ["leakage", "overfitting"]
    assert order(("leakage", 0.7), ("dead_units", 0.9)) == ["dead_units", "leakage"]
    for cause, symptoms in EXPLAINS.items():
        assert cause not in symptoms
        assert all(cause not in EXPLAINS.get(symptom, ()) for symptom in symptoms)


def test_graded_confidence() -> None:
    assert [graded_confidence(value, 2, 10) for value in (2, 6, 10, 99)] == [0.5, 0.725, 0.95, 0.95]


def test_replacing_patch() -> None:
    assert merge_patch({"a": 1, "b": 2}, replacing({"a": 1, "b": 2}, {"b": 3})) == {"b": 3}
    assert replacing(None, {"b": 3}) == {"b": 3}
