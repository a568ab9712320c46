"""What an investigation measured, and what the record says, as one diagnosis."""

from __future__ import annotations

from typing import Any

from tests.support.diagnosis_records import RISING, facts, record, well
from trainkit.diagnose.combined import combined
from trainkit.diagnose.diagnosis import diagnose
from trainkit.diagnose.investigation_history import InvestigationHistory

RATE = {"optimizer": {"kind": "adam", "lr": 0.001}}
NOTHING: dict[str, Any] = {
    "verdicts": [],
    "recommendations": [],
    "harmful": [],
    "refuted": [],
    "suspects": [],
    "tried": [],
}


def verdict(code: str, confidence: float = 0.9) -> dict[str, Any]:
    return {"code": code, "confidence": confidence, "evidence": {"explained_by": []}}


def measured(patch: dict[str, Any], code: str | None, low: float | None = 0.1) -> dict[str, Any]:
    effect = {"metric": "val_loss", "gain": 0.3, "low": low, "high": 0.5, "variant": "a change"}
    return {"patch": patch, "spec": {}, "why": "It helps.", "code": code, "measured": effect}


def overfitted() -> Any:
    return record({"optimizer": {"kind": "adam", "lr": 0.02}}, **well(val_loss=RISING, val_accuracy=[0.88] * 12))


def test_what_was_measured_stands_before_what_the_record_says() -> None:
    run = overfitted()
    assert diagnose(run).verdicts[0].code == "overfitting"
    findings = {
        **NOTHING,
        "verdicts": [verdict("learning_rate_too_high")],
        "recommendations": [measured(RATE, "learning_rate_too_high")],
    }
    shown = combined(run, findings)
    assert [(one["code"], one["source"]) for one in shown["verdicts"]] == [
        ("learning_rate_too_high", "investigation"),
        ("overfitting", "record"),
    ]
    assert shown["recommendations"][0]["patch"] == RATE
    assert {one["code"] for one in shown["recommendations"][1:]} == {"learning_rate_too_high", "overfitting"}
    assert all(one["measured"] is None for one in shown["recommendations"][1:])
    refuted = combined(run, {**findings, "refuted": ["overfitting"]})
    assert [one["code"] for one in refuted["verdicts"]] == ["learning_rate_too_high"]
    again = combined(run, {**findings, "verdicts": [verdict("overfitting", 0.7)]})
    assert [(one["code"], one["confidence"]) for one in again["verdicts"]] == [("overfitting", 0.7)]


def test_what_hurt_or_did_nothing_is_not_recommended() -> None:
    run = overfitted()
    recommended = [one.patch for one in diagnose(run).recommendations]
    changes = {change.name: change.patch for change in InvestigationHistory(run, ()).changes}
    assert changes["regularisation"] in recommended
    tried = [{"change": "regularisation"}]
    findings = {**NOTHING, "verdicts": [verdict("overfitting")], "tried": tried}
    shown = [one["patch"] for one in combined(run, findings)["recommendations"]]
    assert shown
    assert changes["regularisation"] not in shown
    hurt = {**NOTHING, "verdicts": [verdict("overfitting")], "harmful": [measured(recommended[-1], None)]}
    assert recommended[-1] not in [one["patch"] for one in combined(run, hurt)["recommendations"]]


def test_training_and_parts_at_fault_are_mended_by_one_change() -> None:
    shipped = facts(splits={"train": 1200, "validation": 400, "test": 400})
    run = record({"optimizer": {"kind": "adam", "lr": 0.5}}, shipped, **well())
    findings = {
        **NOTHING,
        "verdicts": [verdict("learning_rate_too_high"), verdict("distribution_mismatch")],
        "recommendations": [measured(RATE, "learning_rate_too_high")],
        "tried": [{"change": "random_split"}],
    }
    first, second, *rest = combined(run, findings)["recommendations"]
    assert first["patch"] == {**RATE, "split": {"use_predefined": False}}
    assert first["spec"]["optimizer"] == RATE["optimizer"]
    assert first["spec"]["split"]["use_predefined"] is False
    assert (first["code"], first["measured"]) == ("learning_rate_too_high", None)
    assert (second["patch"], second["measured"]["gain"]) == (RATE, 0.3)
    assert {"split": {"use_predefined": False}} in [one["patch"] for one in rest]
    alone = combined(run, {**findings, "verdicts": [verdict("learning_rate_too_high")]})["recommendations"]
    assert alone[0]["patch"] == RATE
    unsure = combined(run, {**findings, "recommendations": [measured(RATE, "learning_rate_too_high", None)]})
    assert unsure["recommendations"][0]["patch"] == RATE


def test_without_findings_it_is_the_record_s_and_without_a_record_the_investigation_s() -> None:
    run = overfitted()
    shown = combined(run, None)
    assert [one["code"] for one in shown["verdicts"]] == [one.code for one in diagnose(run).verdicts]
    assert {one["source"] for one in shown["verdicts"]} == {"record"}
    findings = {**NOTHING, "verdicts": [verdict("dead_units")], "recommendations": [measured(RATE, None)]}
    assert combined(None, findings)["recommendations"] == findings["recommendations"]
