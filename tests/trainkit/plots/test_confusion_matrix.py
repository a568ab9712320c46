"""Confusion matrices are drawn for few and many classes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from trainkit.plots import confusion


def _picture(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


@pytest.mark.parametrize("classes", [2, 10, 60])
def test_confusion_of_few_and_many(classes):
    matrix = np.eye(classes, dtype=int) * 9 + 1
    image = _picture(confusion(matrix.tolist(), [f"a class with a long name {k}" for k in range(classes)]))
    assert image.min() < 100


def test_confusion_of_a_class_without_samples():
    with np.errstate(all="raise"):
        confusion([[3, 0], [0, 0]], ["a", "b"])
