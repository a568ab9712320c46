"""Learning curves are drawn from any history, the same bytes each time."""

from __future__ import annotations

import io
import math
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from trainkit.plots import learning_curves, style


def picture(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def near(image: np.ndarray, colour: str) -> int:
    """How many pixels have the colour."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(image - rgb).max(axis=2) < 12).sum())


def rows(values: dict[tuple[str, str], list[float]]) -> list[dict]:
    return [
        {"epoch": epoch, "split": split, "name": name, "value": value}
        for (split, name), series in values.items()
        for epoch, value in enumerate(series, start=1)
    ]


def test_curves_draw_training_and_validation():
    history = rows({("train", "loss"): [3, 2, 1], ("val", "loss"): [3, 2.5, 2.4], ("val", "accuracy"): [0.1, 0.5, 0.6]})
    image = picture(learning_curves.curves(history, best_epoch=3, title="digits"))
    assert near(image, style.TRAIN) > 100
    assert near(image, style.VALIDATION) > 200
    assert image.shape[1] > 2 * image.shape[0], "two panels side by side"
    one = picture(learning_curves.curves(rows({("train", "loss"): [3, 2, 1]})))
    assert one.shape[1] < image.shape[1]


@pytest.mark.parametrize("series", [[], [1.0], [math.nan], [1.0, math.inf, math.nan], [1e300, -1e300]])
def test_curves_with_missing_and_non_finite_values(series):
    learning_curves.curves(rows({("train", "loss"): series, ("val", "loss"): series}))


def test_curves_skip_rows_without_a_value():
    assert learning_curves.curves([{"epoch": 1, "split": "val", "name": "loss", "value": None}])


def test_curves_of_the_same_numbers_give_the_same_bytes():
    history = rows({("train", "loss"): [3, 2, 1]})
    assert learning_curves.curves(history) == learning_curves.curves(history)


def test_plots_need_no_torch_and_no_pyplot():
    code = "import sys, trainkit.plots; assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def axis_scales(monkeypatch, history: list[dict]) -> list[str]:
    """Of the panels that are drawn."""
    found: list[str] = []

    def render(figure):
        found.extend(axes.get_yscale() for axes in figure.axes)
        return b""

    monkeypatch.setattr(learning_curves, "render_png", render)
    learning_curves.curves(history)
    return found


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1.0, 0.1, 0.009], "log"),
        ([1.0, 0.1, 0.02], "linear"),
        ([1.0, 0.1, 0.0], "linear"),
        ([1.0, -0.1, 0.001], "linear"),
        ([math.nan, math.inf, 1.0, 0.001], "log"),
        ([math.nan], "linear"),
    ],
)
def test_values_over_more_than_two_decades_have_a_logarithmic_axis(monkeypatch, values, scale):
    assert axis_scales(monkeypatch, rows({("train", "loss"): values})) == [scale]


def test_the_test_part_is_drawn():
    history = [*rows({("train", "loss"): [3, 2, 1]}), {"epoch": 3, "split": "test", "name": "loss", "value": 2.0}]
    assert near(picture(learning_curves.curves(history)), style.TEST) > 30
    assert near(picture(learning_curves.curves(history[:3])), style.TEST) == 0


def test_svg_is_the_same_each_time_and_holds_no_markup_of_the_title():
    history = rows({("train", "loss"): [3, 2, 1]})
    drawn = [learning_curves.curves(history, title="<script>&$x$ --> ]]>", format="svg") for _ in range(2)]
    assert drawn[0] == drawn[1]
    root = ET.fromstring(drawn[0])
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert [one.tag for one in root.iter() if one.tag.endswith(("script", "foreignObject", "image"))] == []
    assert b"<script" not in drawn[0]
