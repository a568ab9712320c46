"""Evidence plots of each verdict code: panels, colours and marks."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.diagnosis_records import (
    RISING,
    SHIPPED,
    STUCK,
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
from trainkit.diagnose.causes import CAUSES, CODES
from trainkit.diagnose.diagnosis import diagnose
from trainkit.diagnose.record import Record
from trainkit.diagnose.verdicts import Verdict
from trainkit.plots import evidence, style

FLAT = {"train_loss": [2.31] * 12, "val_loss": [2.31] * 12}
SLOW = np.linspace(2.4, 2.3, 12).tolist()
PATHS = ("body__block_1__linear", "body__block_2__linear", "head__output")
FADING = {f"layers_grad_norm__{path}": [norm] * 12 for path, norm in zip(PATHS, (1e-6, 1e-3, 1.0), strict=True)}
WEIGHTS = {f"layers_weight_norm__{path}": [5.0] * 12 for path in PATHS}
SGD = {"optimizer": {"kind": "sgd", "lr": 0.1}}
GAINING = np.linspace(2.0, 1.0, 8).tolist()
EVEN = {"confusion_matrix": (np.full((10, 10), 2) + 40 * np.eye(10)).tolist()}


def idle(name: str) -> Record:
    layers = {f"layers_{name}__body__block_{k}__activation": [0.2 * k] * 12 for k in range(1, 5)}
    return record(**well(**FLAT, **layers, **{f"train_{name}": [0.1] * 4 + [0.6] * 8}))


CASES: dict[str, Record] = {
    "healthy": record(**well()),
    "inconclusive": record(**well(val_accuracy=[0.5] * 12)),
    "overfitting": record(**well(val_loss=RISING)),
    "underfitting_model_bias": record({"model": {"kind": "linear"}}, **well(**STUCK)),
    "optimization_failure": record(
        **well(**STUCK, sanity_check_small_model_loss=[1.5, 1.2], sanity_check_small_model_parameters=[300.0])
    ),
    "learning_rate_too_high": record(
        {"optimizer": {"kind": "adam", "lr": 0.5}},
        **well(train_loss=[9.0, 4.0, 2.9, 2.4, math.nan], val_loss=FLAT["val_loss"][:5], train_lr=[0.5] * 5),
        train_batch_loss=[2.0, math.inf],
    ),
    "learning_rate_too_low": record(
        {"optimizer": {"kind": "adam", "lr": 1e-6}}, **well(train_loss=SLOW, val_loss=SLOW, train_lr=[1e-6] * 12)
    ),
    "vanishing_gradients": record(**well(**FLAT, **FADING, **WEIGHTS)),
    "exploding_gradients": record(
        SGD, **well(train_grad_norm=[1e4] * 12, train_weight_norm=[100.0] * 12, **FLAT, **FADING, **WEIGHTS)
    ),
    "dead_units": idle("dead_units"),
    "saturated_activations": idle("saturated_units"),
    "symmetric_initialization": record(
        {"model": {"kind": "mlp", "init": {"kind": "zeros"}}}, **well(**FLAT, **FADING, **WEIGHTS)
    ),
    "unscaled_inputs": record({"preprocess": []}, table(), **well(**FLAT), **columns(900.0, 0.1)),
    "label_noise": record(**noisy(), evaluation={**EVEN, "split": "test"}),
    "class_imbalance": record(about=facts(classes={"a": 1800, "b": 200}), **well(), **rows(0.2, 20)),
    "distribution_mismatch": record(about=facts(**SHIPPED), **well(val_accuracy=[0.95] * 12), **on_test(0.7)),
    "leakage": record(
        about=facts(splits={"train": 1600, "validation": 200, "test": 200}),
        **well(),
        **found(("leakage", "40 samples are in both train and test: the figures")),
    ),
    "validation_too_small": record(
        about=facts(samples=200, classes={"a": 100, "b": 100}), **well(val_accuracy=[0.8] * 12)
    ),
    "stopped_too_early": record(**well(val_loss=GAINING, train_loss=GAINING)),
    "wrong_loss": record(
        about=table(), train_loss=[0.3] * 6, val_loss=[0.3] * 6, val_mae=[2.0] * 6, val_mse=[48.0] * 6
    ),
}


def picture(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def near(image: np.ndarray, colour: str) -> int:
    """How many pixels have the colour."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(image - rgb).max(axis=2) < 12).sum())


def drawn(fields: dict[str, Any], of: Record, code: str = "overfitting") -> np.ndarray:
    verdict = Verdict(code, 0.9, 3, "A sentence.", fields)
    return picture(evidence.evidence(verdict.as_dict(), of))


def test_cases_hold_every_verdict_code() -> None:
    assert set(CASES) == set(CODES)


@pytest.mark.parametrize("code", CASES)
def test_evidence_plot_of_each_code(code: str) -> None:
    verdict = CAUSES[code].evidence(CASES[code]) if code in CAUSES else diagnose(CASES[code]).verdicts[0]
    assert verdict is not None
    assert verdict.code == code
    png = evidence.evidence(verdict.as_dict(), CASES[code])
    image = picture(png)
    assert image.shape[0] > 400
    assert image.shape[1] in (624, 1248), "one panel or two side by side"
    assert near(image, style.TRAIN) + near(image, style.VALIDATION) > 400, "it shows a course or bars"
    assert near(image, style.INK) > 300, "and words"
    again = evidence.evidence(verdict.as_dict(), CASES[code]) if code == "leakage" else png
    assert again == png, "the same numbers give the same bytes"


def test_evidence_plot_marks_the_first_epoch() -> None:
    healthy, fields = record(**well()), {"series": ["train_loss"]}
    verdict = Verdict("overfitting", 0.9, None, "A sentence.", fields)

    def red(image: np.ndarray) -> int:
        """Pixels of the dashed line, or of its soft edges."""
        return int((image[:, :, 0] - image[:, :, 2] > 60).sum())

    assert red(picture(evidence.evidence(verdict.as_dict(), healthy))) == 0
    assert red(drawn(fields, healthy)) > 100


def test_evidence_plot_draws_standard_errors_and_sanity_checks() -> None:
    narrow = record(**well(sanity_check_small_model_loss=[1.9, 1.5, 1.2]))
    band = tuple(int(0.15 * int(style.VALIDATION[i : i + 2], 16) + 0.85 * 255) for i in (1, 3, 5))
    shade = "#" + "".join(f"{value:02x}" for value in band)
    wide = record(**well(val_loss_se=[0.3] * 12))
    assert near(drawn({"series": ["val_loss"]}, wide), shade) > 2 * near(drawn({"series": ["val_loss"]}, narrow), shade)
    probe = drawn({"series": ["train_loss", "sanity_check_small_model_loss"]}, narrow)
    assert near(probe, evidence.PROBE) > near(drawn({"series": ["train_loss"]}, narrow), evidence.PROBE) + 100


def test_evidence_plot_truncates_layers_classes_and_text() -> None:
    layers = {f"layers_dead_units__body__a_block_with_a_long_name_{k}__activation": [0.5] * 12 for k in range(60)}
    layered = record(**well(**layers, train_dead_units=[0.5] * 12))
    shares = dict.fromkeys(layered.layers("dead_units"), 0.5)
    names = [f"layers_dead_units.{path}" for path in shares]
    image = drawn({"share_by_layer": shares, "threshold": 0.5, "series": ["train_dead_units", *names]}, layered)
    assert near(image, style.TRAIN) > 400
    n = 120
    evaluation = {
        "split": "val",
        "classes": [f"class number {k}" for k in range(n)],
        "confusion_matrix": np.ones((n, n), int).tolist(),
        "per_class": [{"class": f"class number {k}", "recall": k / n, "support": k} for k in range(n)],
    }
    many = record(**well(), evaluation=evaluation)
    assert near(drawn({"ratio": 9.0, "conflicting_samples": 0, "series": ["val_recall"]}, many), style.TRAIN) > 400
    verdict = Verdict("leakage", 0.9, None, "word " * 400, {"series": ["val_loss"]})
    assert len(picture(evidence.evidence(verdict.as_dict(), layered))) < 1000


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"series": []},
        {"series": ["val_nothing", "system_cpu_percent"]},
        {"share_by_layer": {"a": math.nan, "b": 0.0}, "threshold": None},
        {"reach_by_layer": {"a": 0.0, "b": 0.0}, "threshold": 1e-3},
        {"first_grad_norm_by_layer": {"a": math.inf, "b": 1e-30, "c": 1e30}},
        {"largest_features": {"a": 1e9}, "median_rms": 0.0, "thresholds": {}},
        {"validation": 0.0, "test": 1e9, "metric": "loss", "difference": 1e9},
        {"share": 3.0, "threshold": 0.01},
        {"samples": {"a": 0, "b": 5}},
    ],
)
def test_evidence_plot_of_arbitrary_evidence(fields: dict[str, Any]) -> None:
    for curves in (record(), record(train_loss=[math.nan] * 3, val_loss=[math.inf, 1.0], val_loss_se=[math.nan, 1.0])):
        assert (drawn({"series": ["train_loss", "val_loss"], **fields}, curves) < 128).any()


@pytest.mark.parametrize("values", [[], [1.0], [1e300, -1e300], [0.0, 1e-9, 1e9], [2.302, 2.3021]])
def test_evidence_plot_of_arbitrary_series(values: list[float]) -> None:
    curves = record(
        train_loss=values, val_loss=falling(2.0, 0.1)[: len(values)], train_lr=values, train_grad_norm=values
    )
    drawn({"lr": 0.1, "best_epoch": 1, "series": ["train_loss", "val_loss", "train_lr", "train_grad_norm"]}, curves)
