"""Names of users are drawn as they stand: no formula, no second line, no error."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from tests.support.diagnosis_records import record
from trainkit.data import Column, ImageInputs, SequenceInputs, TableInputs
from trainkit.data.dataset import make_dataset
from trainkit.plots import confusion, curves
from trainkit.plots.evidence import evidence
from trainkit.plots.sheets import _distribution, dataset_preview
from trainkit.plots.style import literal

NAMES = (
    r"$\frac{$",
    "$x$",
    "$$",
    r"a\$b$c$",
    "\\",
    "a\nb\rc",
    "\x1b[31mred",
    "a\u2028b",
    "\u202egnp",
    "_hidden",
    "é" * 5000,
    "{0:d}",
    "%s",
)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that is drawn, as it is handed to the renderer; a formula fails the test."""
    found: list[str] = []
    parse = Text._preprocess_math

    def preprocess(self: Text, text: str) -> tuple[str, Any]:
        shown, is_formula = parse(self, text)
        # Matplotlib's own tick labels of logarithmic axes are formulas
        assert not is_formula or shown.startswith(r"$\mathdefault{"), f"{text!r} is drawn as a formula"
        found.append(shown)
        return shown, is_formula

    monkeypatch.setattr(Text, "_preprocess_math", preprocess)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_text_is_drawn_as_it_stands(name: str) -> None:
    figure = Figure()
    text = figure.text(0, 0, literal(name))
    FigureCanvasAgg(figure).draw()
    shown, is_formula = text._preprocess_math(text.get_text())
    assert not is_formula
    assert len(shown) == len(name)
    assert {a for a, b in zip(shown, name, strict=True) if a != b} <= {"\ufffd"}
    assert not {"\n", "\r", "\x1b", "\u2028", "\u202e"} & set(shown)


def is_image(raw: bytes) -> bool:
    with Image.open(io.BytesIO(raw)) as image:
        return image.width > 50


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", NAMES)
def test_every_plot_takes_every_name(name: str, drawn: list[str]) -> None:
    classes = (name, "other")
    assert is_image(confusion([[1, 0], [0, 1]], classes, title=name))
    y = np.array([0, 1] * 4)
    images = ImageInputs(np.zeros((8, 4, 4, 1), np.uint8))
    assert is_image(dataset_preview(make_dataset("images", images, y, classes, None)))
    columns = {name: Column(np.arange(8.0)), "kind": Column(y.astype(np.int32), classes)}
    assert is_image(dataset_preview(make_dataset("table", TableInputs(columns), None, None, None)))
    steps = SequenceInputs(np.zeros((16, 2), np.float32), np.arange(0, 17, 2))
    assert is_image(dataset_preview(make_dataset("sequences", steps, y, classes, None)))
    per_class = [{"class": c, "recall": 0.5, "support": 4} for c in classes]
    matrix = {"classes": list(classes), "confusion_matrix": [[3, 1], [1, 3]], "per_class": per_class}
    run = record(evaluation={"split": "test", **matrix}, train_loss=[2.0, 1.0], val_loss=[2.0, 1.5])
    numbers = {
        "samples": dict.fromkeys(classes, 4),
        "conflicting_samples": 0,
        "largest_features": {name: 9.0, "b": 1.0},
    }
    verdict = {
        "code": "label_noise",
        "confidence": 0.5,
        "since_epoch": 1,
        "message": f"class {name}",
        "evidence": numbers,
    }
    assert is_image(evidence(verdict, run))
    assert is_image(evidence({**verdict, "evidence": {"ratio": 3.0}}, run))
    assert drawn


def test_two_categories_that_are_shortened_alike_keep_their_bars() -> None:
    axes = Figure().add_subplot()
    names = ("the same beginning, one", "the same beginning, two")
    _distribution(axes, Column(np.array([0, 1, 1, 1] * 3, np.int32), names))
    assert sorted(bar.get_width() for bar in axes.patches) == [3, 9]
    assert len({bar.get_y() for bar in axes.patches}) == 2


def test_curves_take_every_title() -> None:
    for name in NAMES[:4]:
        assert is_image(curves([{"epoch": 1, "split": "val", "name": "loss", "value": 1.0}], title=name))
