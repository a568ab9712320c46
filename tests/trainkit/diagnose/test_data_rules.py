"""Rules about data: reports and series that trigger a rule, and near misses that do not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.support.diagnosis_records import (
    SHIPPED,
    columns,
    facts,
    falling,
    found,
    noisy,
    on_test,
    record,
    rows,
    table,
    well,
)
from trainkit.data import Dataset
from trainkit.data.dataset import SequenceInputs, make_dataset
from trainkit.data.report import report
from trainkit.diagnose.causes import CAUSES
from trainkit.diagnose.causes.class_imbalance import evidence as class_imbalance
from trainkit.diagnose.causes.distribution_mismatch import evidence as distribution_mismatch
from trainkit.diagnose.causes.label_noise import evidence as label_noise
from trainkit.diagnose.causes.leakage import evidence as leakage
from trainkit.diagnose.causes.unscaled_inputs import evidence as unscaled_inputs
from trainkit.diagnose.causes.validation_too_small import evidence as validation_too_small
from trainkit.diagnose.diagnosis import diagnose


def test_unscaled_inputs() -> None:
    as_they_are: dict[str, Any] = {"preprocess": []}
    large = unscaled_inputs(record(as_they_are, table(), **columns(900.0, 0.1)))
    assert large is not None
    assert (large.evidence["largest_rms"], large.evidence["median_rms"]) == (900.0, pytest.approx(450.05))
    assert list(large.evidence["largest_features"]) == ["a", "b"]
    assert unscaled_inputs(record(as_they_are, table(), **columns(1.0, 1.0))) is None
    # the default of a table is z_score
    assert unscaled_inputs(record(about=table(), **columns(900.0, 0.1))) is None
    assert unscaled_inputs(record({"preprocess": [{"kind": "z_score"}]}, table(), **columns(900.0, 0.1))) is None
    # mean 0 alone scales nothing
    assert unscaled_inputs(record({"preprocess": [{"kind": "zero_mean"}]}, table(), **columns(900.0, 0.1))) is not None
    assert unscaled_inputs(record(about=facts(), report={"feature_statistics": {"index": [0], "rms": [128.0]}})) is None


def test_unscaled_inputs_of_a_multimodal_model_are_its_columns() -> None:
    about = table(kind="image_table", input_shape=(1, 8, 8), input_dtype="uint8", target_type="number")
    model: dict[str, Any] = {"model": {"kind": "multimodal"}}
    found = unscaled_inputs(record({**model, "preprocess_columns": []}, about, **columns(900.0, 0.1)))
    assert found is not None
    assert list(found.evidence["largest_features"]) == ["a", "b"]
    assert unscaled_inputs(record(model, about, **columns(900.0, 0.1))) is None
    multimodal = record({**model, "preprocess_columns": []}, about)
    patches = [change.patch for change in CAUSES["unscaled_inputs"].recommendations(multimodal)]
    assert patches[0] == {"preprocess_columns": [{"kind": "z_score"}]}
    assert [list(patch) for patch in patches] == [["preprocess_columns"]] * 2


def test_unscaled_inputs_reads_the_report_of_arrays() -> None:
    values = np.array([[3.0, 0.0, 100.0], [-4.0, 0.0, 100.0]])
    data_report = report(Dataset.from_arrays(values, np.array([0, 1])), "", {})
    assert data_report["feature_statistics"] == {"index": [0, 1, 2], "rms": [3.53553, 0.0, 100.0]}
    sequences = SequenceInputs(values.astype(np.float32), np.array([0, 1, 2]))
    of_steps = report(make_dataset("sequences", sequences, np.array([0, 1]), ("a", "b"), None), "", {})
    assert of_steps["feature_statistics"] == data_report["feature_statistics"]


def test_label_noise_memorised() -> None:
    verdict = label_noise(record(**noisy()))
    assert verdict is not None
    course = verdict.evidence["course"]
    assert (course["peak_epoch"], course["train_last"]) == (4, 1.0)
    assert course["fall"] == pytest.approx((0.7 + 0.72 + 0.7) / 3 - (0.52 + 0.5 + 0.5) / 3)
    # a fall within the noise; a training part that was ahead from the beginning (too few samples); validation holds
    assert label_noise(record(**{**noisy(), "val_accuracy_se": [0.1] * 12})) is None
    assert label_noise(record(**{**noisy(), "train_accuracy": [0.9] * 4 + [1.0] * 8})) is None
    assert label_noise(record(**well())) is None


def test_label_noise_by_duplicates_with_different_labels() -> None:
    assert (
        label_noise(record(**well(), **found(("conflicting_labels", "60 samples have duplicates in another class"))))
        is not None
    )
    assert (
        label_noise(record(**well(), **found(("conflicting_labels", "3 samples have duplicates in another class"))))
        is None
    )


def test_class_imbalance() -> None:
    rare = facts(classes={"a": 1800, "b": 200})
    verdict = class_imbalance(record(about=rare, **well(), **rows(0.2, 20)))
    assert verdict is not None
    assert (verdict.evidence["ratio"], verdict.evidence["share_of_largest"]) == (9.0, 0.9)
    assert class_imbalance(record(about=rare, **well(), **rows(0.9, 20))) is None
    assert class_imbalance(record(about=rare, **well(), **rows(0.6, 3))) is None
    assert class_imbalance(record({"balance": "class_weights"}, rare, **well(), **rows(0.2, 20))) is None
    assert class_imbalance(record(about=facts(classes={"a": 1500, "b": 500}), **well(), **rows(0.2, 50))) is None
    # of many classes the small ones together, against all others
    many = facts(classes={str(k): 180 for k in range(8)} | {"8": 10, "9": 10})
    missed = {
        "per_class": [
            {"class": str(k), "recall": 0.9 if k < 8 else 0.0, "support": 36 if k < 8 else 2} for k in range(10)
        ]
    }
    verdict = class_imbalance(record(about=many, **well(), evaluation=missed))
    assert verdict is not None
    assert verdict.evidence["small"] == ["8", "9"]
    assert verdict.evidence["noise"] == pytest.approx(2 * (1 / 6 / 4) ** 0.5)
    # while it runs there is no evaluation yet
    live = well(val_accuracy=[0.9] * 12, val_recall=[0.55] * 12)
    assert class_imbalance(record(about=rare, **live)) is not None
    assert class_imbalance(record(about=rare, **well(val_accuracy=[0.9] * 12, val_recall=[0.85] * 12))) is None


def test_distribution_mismatch_by_a_worse_test_part() -> None:
    shipped = facts(**SHIPPED)
    verdict = distribution_mismatch(record(about=shipped, **well(val_accuracy=[0.95] * 12), **on_test(0.7)))
    assert verdict is not None
    assert verdict.evidence["difference"] == pytest.approx(0.25)
    # (0.95 x 200 + 1) / 202 and (0.7 x 200 + 1) / 202
    p, q = 191 / 202, 141 / 202
    assert verdict.evidence["standard_error"] == pytest.approx(((p * (1 - p) + q * (1 - q)) / 200) ** 0.5)
    assert distribution_mismatch(record(about=shipped, **well(val_accuracy=[0.95] * 12), **on_test(0.91))) is None
    assert distribution_mismatch(record(about=shipped, **well(val_accuracy=[0.95] * 12), **on_test(0.7, 8))) is None
    # parts that were cut at random differ by chance alone
    assert distribution_mismatch(record(**well(val_accuracy=[0.95] * 12), **on_test(0.7))) is None
    anew = {"split": {"use_predefined": False}}
    assert distribution_mismatch(record(anew, shipped, **well(val_accuracy=[0.95] * 12), **on_test(0.7))) is None


def test_distribution_mismatch_by_drift() -> None:
    def confidence(part: str, accuracy: float = 0.93, samples: int = 200) -> float:
        message = f"x is distributed differently in {part} than in train (KS 0.30)"
        drifted = record(about=facts(**SHIPPED), **well(), **on_test(accuracy, samples), **found(("drift", message)))
        verdict = distribution_mismatch(drifted)
        assert verdict is not None
        return verdict.confidence

    assert confidence("test") < confidence("validation") == 0.5
    assert 0.5 < confidence("test", 0.8, 30) < confidence("test", 0.5, 200)  # worse, but on few samples


def test_distribution_mismatch_of_a_regression() -> None:
    series = {"train_loss": falling(0.9, 0.2), "val_loss": falling(0.9, 0.25), "val_loss_se": [0.02] * 12}
    evaluation = {"split": "test", "samples": 30, "metrics": {"loss": 0.8}}
    shipped = table(splits={"train": 240, "validation": 30, "test": 30})
    assert distribution_mismatch(record(about=shipped, **series, evaluation=evaluation)) is not None
    evaluation = {"split": "test", "samples": 30, "metrics": {"loss": 0.3}}
    assert distribution_mismatch(record(about=shipped, **series, evaluation=evaluation)) is None


def test_leakage_by_duplicates() -> None:
    shipped = facts(**SHIPPED)
    message = ("leakage", "40 samples are in both train and test: the figures")
    verdict = leakage(record(about=shipped, **well(), **found(message)))
    assert verdict is not None
    assert verdict.evidence["share"] == 0.1
    assert (
        leakage(record(about=shipped, **well(), **found(("leakage", "2 samples are in both train and test")))) is None
    )
    assert leakage(record({"split": {"use_predefined": False}}, shipped, **well(), **found(message))) is None
    assert leakage(record({"split": {"duplicates": "drop"}}, shipped, **well(), **found(message))) is None
    assert leakage(record(**well(), **found(("duplicates", "400 samples are exact duplicates")))) is not None
    assert leakage(record(**well(), **found(("duplicates", "20 samples are exact duplicates")))) is None


def test_leakage_by_a_target_leaking_column() -> None:
    leaks = found(
        ("target_leak", 'column "b" alone predicts the class (100.0%): check whether it is known before the target')
    )
    leaks["report"]["findings"][0]["where"] = "b"
    falls = {"train_loss": falling(0.9, 0.0), "val_loss": falling(0.9, 0.0)}
    diagnosis = diagnose(record({"dataset": {"id": "ds_1", "target": "y"}}, table(), **falls, **leaks))
    assert diagnosis.verdicts[0].code == "leakage"
    assert diagnosis.verdicts[0].evidence["features"] == ["b"]
    assert diagnosis.verdicts[0].message.startswith('Column "b" alone predicts')
    (offer,) = diagnosis.recommendations
    assert offer.spec["dataset"] == {"id": "ds_1", "target": "y", "ignore": ["b"]}
    alone = leakage(record({"dataset": {"id": "ds_1", "target": "y"}}, table(), **falls, **leaks))
    leaks["report"]["findings"][0]["code"] = "noisy_target_leak"
    noisy = leakage(record({"dataset": {"id": "ds_1", "target": "y"}}, table(), **falls, **leaks))
    assert alone is not None
    assert noisy is not None
    assert noisy.confidence < alone.confidence, "a column that alone causes the target looks the same"
    assert noisy.evidence["features"] == ["b"]
    # it has been left out already
    without = {"dataset": {"id": "ds_1", "target": "y", "ignore": ["b"]}}
    assert leakage(record(without, table(), **falls, **leaks)) is None
    assert (
        leakage(record({"dataset": {"id": "ds_1", "target": "y", "features": ["a"]}}, table(), **falls, **leaks))
        is None
    )
    # arrays have no columns to ignore
    leaks["report"]["findings"][0]["where"] = "feature 3"
    assert [v.code for v in diagnose(record(**well(), **leaks)).verdicts] == ["leakage"]


def test_validation_too_small() -> None:
    small = facts(samples=200, classes={"a": 100, "b": 100})
    verdict = validation_too_small(record(about=small, **well(val_accuracy=[0.8] * 12)))
    assert verdict is not None
    assert verdict.evidence["samples"] == 20
    # half of them are right: of a model that knows nothing any interval is wide
    third = facts(samples=300, classes={"a": 150, "b": 150})
    assert validation_too_small(record(about=third, **well(val_accuracy=[0.5] * 12))) is None
    # 20 right of 20: +-0.08. As a tenth of few samples that is what there is; as a hundredth of many it is a choice
    right = well(val_accuracy=[1.0] * 12)
    assert validation_too_small(record(about=small, **right)) is None
    assert validation_too_small(record({"split": "98:1:1"}, **right)) is not None
    assert validation_too_small(record(**well(val_accuracy=[0.8] * 12))) is None
    none = validation_too_small(record({"split": "8:2"}, **{"train_loss": falling(2.0, 0.1)}))
    assert none is not None
    assert none.evidence["samples"] == 0
    rough = {"val_loss": [1.0] * 4, "val_loss_se": [0.4] * 4}
    assert validation_too_small(record(about=table(), **rough)) is not None
    fine = {**rough, "val_loss_se": [0.1] * 4}
    assert validation_too_small(record(about=table(), **fine)) is None
    # 3 of 300: whatever they say of themselves, squared residuals of 3 are known to 2 sqrt(2 / 3)
    handful = validation_too_small(record({"split": "98:1:1"}, table(), **fine))
    assert handful is not None
    assert handful.evidence["width"] == pytest.approx(2 * math.sqrt(2 / 3))
