"""Training with augmentation does not depend on the scale of the images: real digits of 0..16, 0..1, bytes ..."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import trainkit as tk
from trainkit.data import Dataset

IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = IMAGES.reshape(-1, 8, 8)
STEPS = [{"kind": "noise", "std": 0.02}, {"kind": "brightness", "amount": 0.2}, {"kind": "translate"}]


def trained(x: Any, augment: list[dict[str, Any]]) -> dict[str, float]:
    spec = {
        "dataset": "d",
        "model": {"kind": "mlp", "hidden": [64]},
        "preprocess": [{"kind": "z_score"}],
        "augment": augment,
        "optimizer": {"kind": "adam", "lr": 0.005},
        "train": {"epochs": 6, "batch_size": 64, "deterministic": True},
    }
    result = tk.fit(tk.JobSpec.model_validate(spec), Dataset.from_arrays(x, LABELS))
    assert result.evaluation is not None
    return dict(result.evaluation["metrics"])


@pytest.fixture(scope="module")
def scaled() -> dict[str, float]:
    return trained(IMAGES / 16, STEPS)


@pytest.mark.parametrize(
    ("name", "x"),
    [
        ("0..16", IMAGES.astype(np.float32)),
        ("whole 0..16", IMAGES.astype(np.int64)),
        ("bytes of 0..16", IMAGES.astype(np.uint8)),
        ("0..255", IMAGES / 16 * 255),
        ("-1..1", IMAGES / 8 - 1),
        ("standardised", (IMAGES - IMAGES.mean()) / IMAGES.std()),
        ("with an axis of channels", IMAGES[..., None]),
    ],
)
def test_the_scale_of_the_images_does_not_matter(name: str, x: Any, scaled: dict[str, float]) -> None:
    assert scaled["accuracy"] > 0.93
    metrics = trained(x, STEPS)
    assert metrics["accuracy"] == pytest.approx(scaled["accuracy"], abs=0.012), name
    assert metrics["loss"] == pytest.approx(scaled["loss"], rel=0.1), name


def test_noise_alone_leaves_the_accuracy_of_training_without_it() -> None:
    without, noisy = trained(IMAGES, []), trained(IMAGES, STEPS[:1])
    assert noisy["accuracy"] == pytest.approx(without["accuracy"], abs=0.02)
