"""Pictures of data as PNG bytes: contact sheets of images and plots of columns. No torch."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from trainkit.data import Column, Dataset, ImageInputs, SequenceInputs, TableInputs

BLUE, INK, GRID = "#3b6fb6", "#222831", "#e3e6ea"
MOST_PANELS = 12


def contact_sheet(
    images: NDArray[np.floating[Any]], labels: Sequence[str], *, columns: int = 5, title: str = ""
) -> bytes:
    """A grid of images (n, H, W, C) with values in [0, 1], each under its label; small ones are drawn without blur."""
    rows = math.ceil(len(images) / columns)
    figure = Figure(figsize=(1.35 * columns, 1.5 * rows + (0.4 if title else 0)), dpi=130, layout="constrained")
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        axes = figure.add_subplot(rows, columns, index + 1)
        picture = image[..., 0] if image.shape[-1] == 1 else image
        axes.imshow(np.clip(picture, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        if label:
            axes.set_title(label, fontsize=7, color=INK, pad=2)
    if title:
        figure.suptitle(title, fontsize=9, color=INK)
    return png(figure)


def dataset_preview(dataset: Dataset) -> bytes:
    """What the dataset looks like: labelled images, a few sequences, or the distribution of each column."""
    inputs = dataset.inputs
    if isinstance(inputs, ImageInputs):
        names = target_names(dataset)
        chosen = _spread(names, len(inputs.pixels), 30)
        images = np.asarray(inputs.pixels[chosen], np.float32) / 255
        return contact_sheet(images, [names[i] if names else "" for i in chosen], columns=6)
    if isinstance(inputs, TableInputs):
        return _columns(inputs.columns)
    if isinstance(inputs, SequenceInputs):
        return _sequences(inputs, target_names(dataset))
    values = np.asarray(inputs.values).reshape(len(inputs.values), -1)
    return _columns({f"feature {i}": Column(values[:, i].astype(np.float64)) for i in range(values.shape[1])})


def target_names(dataset: Dataset) -> list[str]:
    """The class name of each sample; empty when it has none."""
    classes = list(dataset.facts.classes or ())
    if not classes or dataset.targets is None:
        return []
    return [classes[index] for index in np.asarray(dataset.targets).tolist()]


def _spread(names: Sequence[str], count: int, most: int) -> NDArray[np.int64]:
    """Up to `most` positions, the classes in turn, so that every class is seen."""
    if not names:
        return np.arange(min(count, most))
    by_class: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        by_class.setdefault(name, []).append(position)
    turns = [own[: math.ceil(most / len(by_class)) + 1] for _, own in sorted(by_class.items())]
    interleaved = [own[turn] for turn in range(max(map(len, turns))) for own in turns if turn < len(own)]
    return np.array(sorted(interleaved[:most], key=lambda p: (names[p], p)), np.int64)


def _columns(columns: dict[str, Column]) -> bytes:
    shown = list(columns.items())[:MOST_PANELS]
    across = min(4, len(shown))
    rows = math.ceil(len(shown) / across)
    figure = Figure(figsize=(2.5 * across, 1.9 * rows), dpi=130, layout="constrained")
    for index, (name, column) in enumerate(shown):
        axes = figure.add_subplot(rows, across, index + 1)
        values = np.asarray(column.values)
        if column.categories is None:
            present = values[np.isfinite(values)]
            axes.hist(present, bins=30, color=BLUE)
            missing = len(values) - len(present)
        else:
            counts = np.bincount(values[values >= 0], minlength=len(column.categories))
            order = np.argsort(-counts)[:8]
            axes.barh([column.categories[i][:14] for i in order][::-1], counts[order][::-1], color=BLUE)
            missing = int((values < 0).sum())
        note = f"  ({missing} missing)" if missing else ""
        axes.set_title(f"{name[:24]}{note}", fontsize=7, color=INK)
        axes.tick_params(labelsize=6, length=2)
        axes.grid(color=GRID, linewidth=0.5)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    if len(columns) > len(shown):
        figure.suptitle(f"the first {len(shown)} of {len(columns)} columns", fontsize=8, color=INK)
    return png(figure)


def _sequences(inputs: SequenceInputs, names: Sequence[str]) -> bytes:
    count = len(inputs.offsets) - 1
    chosen = _spread(names, count, 9)
    figure = Figure(figsize=(7.5, 1.7 * math.ceil(len(chosen) / 3)), dpi=130, layout="constrained")
    for index, position in enumerate(chosen):
        axes = figure.add_subplot(math.ceil(len(chosen) / 3), 3, index + 1)
        axes.plot(np.asarray(inputs.values[inputs.offsets[position] : inputs.offsets[position + 1]]), linewidth=0.8)
        axes.set_title(names[position] if names else "", fontsize=7, color=INK)
        axes.tick_params(labelsize=6, length=2)
    return png(figure)


def png(figure: Figure) -> bytes:
    """The figure's PNG."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
