from __future__ import annotations

import io
import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from trainkit.plots import learning_curves


def picture(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def near(image: np.ndarray, colour: str) -> int:
    """How many pixels have the colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(image - wanted).max(axis=2) < 12).sum())


def rows(values: dict[tuple[str, str], list[float]]) -> list[dict]:
    return [
        {"epoch": epoch, "split": split, "name": name, "value": value}
        for (split, name), series in values.items()
        for epoch, value in enumerate(series, start=1)
    ]


def test_curves_draw_both_parts():
    history = rows({("train", "loss"): [3, 2, 1], ("val", "loss"): [3, 2.5, 2.4], ("val", "accuracy"): [0.1, 0.5, 0.6]})
    image = picture(learning_curves.curves(history, best_epoch=3, title="digits"))
    assert near(image, learning_curves.TRAIN) > 100
    assert near(image, learning_curves.VALIDATION) > 200
    assert image.shape[1] > 2 * image.shape[0], "two panels side by side"
    one = picture(learning_curves.curves(rows({("train", "loss"): [3, 2, 1]})))
    assert one.shape[1] < image.shape[1]


@pytest.mark.parametrize("series", [[], [1.0], [math.nan], [1.0, math.inf, math.nan], [1e300, -1e300]])
def test_curves_of_anything(series):
    learning_curves.curves(rows({("train", "loss"): series, ("val", "loss"): series}))


def test_rows_without_a_value_are_skipped():
    assert learning_curves.curves([{"epoch": 1, "split": "val", "name": "loss", "value": None}])


@pytest.mark.parametrize("classes", [2, 10, 60])
def test_confusion_of_few_and_many(classes):
    matrix = np.eye(classes, dtype=int) * 9 + 1
    image = picture(
        learning_curves.confusion(matrix.tolist(), [f"a class with a long name {k}" for k in range(classes)])
    )
    assert image.min() < 100


def test_a_class_without_samples_is_no_division_by_zero():
    with np.errstate(all="raise"):
        learning_curves.confusion([[3, 0], [0, 0]], ["a", "b"])


def test_the_same_numbers_give_the_same_bytes():
    history = rows({("train", "loss"): [3, 2, 1]})
    assert learning_curves.curves(history) == learning_curves.curves(history)


def test_plots_need_no_torch_and_no_pyplot():
    code = "import sys, trainkit.plots; assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
