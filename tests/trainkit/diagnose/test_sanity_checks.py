"""Sanity checks: the verdict they support, on hand-made rows and two real runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.diagnosis_records import STUCK, record, well
from tests.support.planted_faults import digits, run
from trainkit.diagnose import sanity_checks
from trainkit.diagnose.causes.learning_rate_too_low import evidence as learning_rate_too_low
from trainkit.diagnose.causes.optimization_failure import evidence as optimization_failure
from trainkit.diagnose.causes.underfitting_model_bias import evidence as underfitting_model_bias
from trainkit.diagnose.diagnosis import diagnose
from trainkit.diagnose.record import Record, Series

TINY = {"model": {"kind": "mlp", "hidden": [20, 4]}}
"""Fewer parameters than 2 n + d, more than 2 x 16 + d."""


def row(value: float, step: int = 0) -> Series:
    return Series(np.array([step]), np.array([1]), np.array([value]))


def probed(
    spec: dict[str, Any] | None = None, batch: float | None = None, small: float | None = None, **given: Any
) -> Record:
    """A run that stands still at 1.8 (baseline 2.303), with the accuracy on 16 samples and the smaller model's loss."""
    unprobed = record(spec, **well(**{**STUCK, **given}))
    series = dict(unprobed.series)
    if batch is not None:
        series |= {"sanity_check_first_batch_accuracy": row(batch, 200), "sanity_check_first_batch_loss": row(1.0, 200)}
        series["sanity_check_first_batch_samples"] = row(16, 200)
    if small is not None:
        series |= {"sanity_check_small_model_loss": row(small, 20), "sanity_check_small_model_parameters": row(300, 20)}
    return Record(
        unprobed.spec, unprobed.facts, series, state=unprobed.state, stop_reason="completed", document=unprobed.document
    )


@pytest.mark.parametrize(
    ("batch", "small", "code", "confidence"),
    [
        (None, 1.2, "optimization_failure", 0.9),
        (0.2, 1.2, "optimization_failure", 0.95),
        (1.0, 1.2, "optimization_failure", 0.8),
        (0.2, None, "optimization_failure", 0.85),
        (0.2, 1.9, None, 0.0),
        (1.0, 1.9, "underfitting_model_bias", 0.85),
        (None, 1.82, "underfitting_model_bias", 0.7),
        (1.0, None, None, 0.0),
        (0.7, None, None, 0.0),
    ],
)
def test_interpret_sanity_checks(batch: float | None, small: float | None, code: str | None, confidence: float) -> None:
    found = sanity_checks.interpret_sanity_checks(probed(batch=batch, small=small))
    assert found is not None
    assert (found.code, found.confidence) == (code, confidence)


def test_sanity_check_numbers_by_hand() -> None:
    found = sanity_checks.small_model(probed(small=1.77))
    assert found is not None
    # after 20 steps, the second epoch, the run was at 1.82; a twentieth of ln 10 is 0.115
    assert (found["steps"], found["train_loss_then"], found["train_loss"]) == (20, 1.82, 1.8)
    assert found["margin"] == pytest.approx(0.05 * np.log(10))
    assert (found["lower"], found["ahead"]) == (False, False)
    assert sanity_checks.first_batch(probed(batch=0.95)) == {
        "samples": 16,
        "steps": 200,
        "loss": 1.0,
        "accuracy": 0.95,
        "learnt": True,
        "threshold": 0.95,
    }
    assert sanity_checks.interpret_sanity_checks(probed()) is None


def test_sanity_checks_override_the_number_of_parameters() -> None:
    """Without probes the larger network is said not to be trained, the smaller one to be too small."""
    assert optimization_failure(probed()) is not None
    assert underfitting_model_bias(probed(TINY)) is not None
    bias = underfitting_model_bias(probed(batch=1.0, small=1.9))
    assert bias is not None
    assert (bias.confidence, bias.evidence["sanity_checks"]["small_model"]["parameters"]) == (0.85, 300)
    assert optimization_failure(probed(batch=1.0, small=1.9)) is None
    failed = optimization_failure(probed(TINY, small=1.2))
    assert failed is not None
    assert (failed.confidence, failed.evidence["cannot_tell"]) == (0.9, None)
    assert "300 parameters reached a loss of 1.2 in 20 steps" in failed.message
    assert underfitting_model_bias(probed(TINY, small=1.2)) is None


def test_undecided_sanity_checks_change_no_verdict() -> None:
    assert optimization_failure(probed(batch=0.7)) == _with_evidence(optimization_failure(probed()), probed(batch=0.7))
    assert underfitting_model_bias(probed(TINY, batch=0.7)) is not None


def _with_evidence(verdict: Any, of: Record) -> Any:
    found = sanity_checks.interpret_sanity_checks(of)
    assert found is not None
    verdict.evidence["sanity_checks"] = found.evidence
    return verdict


def test_penalties_explain_a_better_smaller_model() -> None:
    held = probed({"regularize": {"l2": 400}}, small=1.2)
    assert optimization_failure(held) is None
    verdict = underfitting_model_bias(held)
    assert verdict is not None
    assert verdict.evidence["penalties"] == ["l2"]


def test_batch_that_is_not_memorised_raises_the_confidence_of_a_low_rate() -> None:
    slow = {"train_loss": np.linspace(2.3, 2.2, 12).tolist(), "val_loss": [2.3] * 12, "train_lr": [1e-6] * 12}
    spec = {"optimizer": {"kind": "adam", "lr": 1e-6}}
    without, beside = learning_rate_too_low(probed(spec, **slow)), learning_rate_too_low(probed(spec, 0.2, **slow))
    assert without is not None
    assert beside is not None
    assert beside.confidence == min(0.97, round(without.confidence + 0.1, 3))
    assert beside.evidence["first_batch"]["learnt"] is False


def test_sanity_checks_are_the_last_recommendation() -> None:
    spec = {"optimizer": {"kind": "adam"}, "model": {"kind": "mlp", "norm": "layer"}}
    found = diagnose(probed(spec)).recommendations
    patches = [one.patch for one in found if one.code == "optimization_failure"]
    assert patches[-1] == {"train": {"sanity_checks": ["first_batch", "small_model"]}}


BOTH = {"sanity_checks": ["first_batch", "small_model"]}


def test_sanity_checks_of_real_runs() -> None:
    """Weights and a rate that let nothing be learnt; and a sound run, whose probes say nothing against it."""
    stuck = run(
        digits(),
        model={"kind": "mlp", "hidden": [128, 64], "activation": "sigmoid", "init": {"kind": "normal", "std": 1e-4}},
        optimizer={"kind": "sgd", "lr": 0.02},
        train={"epochs": 12, **BOTH},
    )
    failed = {v.code: v for v in stuck.verdicts}.get("optimization_failure")
    assert failed is not None, stuck.verdicts
    evidence = failed.evidence["sanity_checks"]
    assert (evidence["small_model"]["lower"], evidence["first_batch"]["learnt"]) == (True, False)
    assert failed.evidence["score"] == 0.95
    sound = run(digits(), model={"kind": "mlp", "hidden": [128, 64]}, train={"epochs": 12, **BOTH})
    assert [v.code for v in sound.verdicts] == ["healthy"]
    assert sound.recommendations == []
