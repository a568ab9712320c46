"""Figures as PNG bytes: learning curves and confusion matrices. Figure objects only, no pyplot state, no torch."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

TRAIN, VALIDATION, INK, GRID = "#3b6fb6", "#d1603d", "#222831", "#e3e6ea"
COLOURS = {"train": TRAIN, "val": VALIDATION}
NAMES = {"train": "training", "val": "validation"}
SECOND = ("accuracy", "r2", "mse", "mae")
"""What the right-hand panel shows: the first of these that was measured."""
LARGEST_ANNOTATED = 20


def curves(rows: Iterable[Mapping[str, Any]], *, best_epoch: int | None = None, title: str = "") -> bytes:
    """Loss, and accuracy (or r2, mse, mae), of training and validation over the epochs.

    `rows`: `{epoch, split, name, value}`; the last row of an epoch counts. Non-finite values leave gaps and are marked.
    """
    series: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        if row["value"] is not None:
            series.setdefault((row["name"], row["split"]), {})[int(row["epoch"])] = float(row["value"])
    second = next((name for name in SECOND if any((name, split) in series for split in COLOURS)), None)
    panels = ["loss", *([second] if second else [])]
    figure = Figure(figsize=(5.2 * len(panels), 3.6), dpi=120)
    for place, name in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        for split in COLOURS:
            _line(axes, series.get((name, split), {}), split)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label=f"best: epoch {best_epoch}")
        _style(axes, "epoch", name)
        if any((name, split) in series for split in COLOURS):
            axes.legend(frameon=False, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10, color=INK, x=0.02, ha="left")
    # Fixed margins: measuring every text to find them costs more than all of the drawing.
    side = 0.55 / (5.2 * len(panels))
    figure.subplots_adjust(left=1.2 * side, right=1 - 0.4 * side, bottom=0.14, top=0.84 if title else 0.91, wspace=0.16)
    return _png(figure)


def _line(axes: Axes, points: Mapping[int, float], split: str) -> None:
    if not points:
        return
    epochs = sorted(points)
    values = [points[epoch] if math.isfinite(points[epoch]) else math.nan for epoch in epochs]
    marker = "o" if len(epochs) <= 30 else ""
    axes.plot(epochs, values, color=COLOURS[split], label=NAMES[split], linewidth=1.7, marker=marker, markersize=3)
    broken = [epoch for epoch in epochs if not math.isfinite(points[epoch])]
    for epoch in broken[:1]:
        axes.axvspan(epoch - 0.5, epochs[-1] + 0.5, color="#d1603d", alpha=0.12, linewidth=0)
        axes.annotate("not finite", (epoch, 1.0), xycoords=("data", "axes fraction"), fontsize=7, va="bottom")


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], *, title: str = "") -> bytes:
    """Confusion matrix (rows: true, columns: predicted), coloured by share of the true class, counts written in."""
    counts = np.asarray(matrix, dtype=np.int64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    k = len(classes)
    side = min(11.0, max(3.6, 1.6 + 0.42 * k))
    figure = Figure(figsize=(side + 0.8, side), dpi=130, layout="constrained")
    axes = figure.add_subplot(1, 1, 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.02)
    bar.set_label("share of the true class", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7, length=0, colors=INK)
    bar.outline.set_visible(False)
    labels = [name if len(name) <= 14 else name[:13] + "…" for name in classes]
    every = max(1, k // 40)
    axes.set_xticks(range(0, k, every), labels[::every], rotation=45 if k > 3 else 0, ha="right" if k > 3 else "center")
    axes.set_yticks(range(0, k, every), labels[::every])
    if k <= LARGEST_ANNOTATED:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.55 else INK
                axes.text(column, row, str(count), ha="center", va="center", fontsize=7.5, color=colour)
    accuracy = np.trace(counts) / max(int(counts.sum()), 1)
    axes.set_title(title or f"accuracy {accuracy:.1%} of {int(counts.sum())}", fontsize=9, color=INK)
    axes.set_xlabel("predicted", fontsize=8, color=INK)
    axes.set_ylabel("true", fontsize=8, color=INK)
    axes.tick_params(labelsize=7, length=0, colors=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return _png(figure)


def _style(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=8, color=INK)
    axes.set_title(y, fontsize=9, color=INK, loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(left=max(0.5, axes.get_xlim()[0]))  # there is no epoch 0
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7, length=0, colors=INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRID)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # No date and no version in the file: the same numbers give the same bytes.
    FigureCanvasAgg(figure).print_figure(
        buffer, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 4}
    )
    return buffer.getvalue()
