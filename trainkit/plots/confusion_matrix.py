"""Confusion matrices as PNG or SVG bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from trainkit.plots.style import INK, literal, render_png, render_svg

LARGEST_ANNOTATED = 20
"""Number of classes up to which the counts are written into the cells."""
SHORT_LABEL = 5
"""Characters of the longest label that still fits under its column unrotated."""


def confusion(
    matrix: Sequence[Sequence[int]], classes: Sequence[str], *, title: str = "", format: Literal["png", "svg"] = "png"
) -> bytes:
    """Draw a confusion matrix (rows: true, columns: predicted), coloured by the share of the true class, with counts."""
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
    labels = [literal(name if len(name) <= 14 else name[:13] + "…") for name in classes]
    every = max(1, k // 40)
    # up to so many characters fit side by side
    slanted = k > 3 and max(map(len, classes)) > SHORT_LABEL
    axes.set_xticks(
        range(0, k, every), labels[::every], rotation=45 if slanted else 0, ha="right" if slanted else "center"
    )
    axes.set_yticks(range(0, k, every), labels[::every])
    if k <= LARGEST_ANNOTATED:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.55 else INK
                axes.text(column, row, str(count), ha="center", va="center", fontsize=7.5, color=colour)
    accuracy = np.trace(counts) / max(int(counts.sum()), 1)
    shown = f"{literal(title)}: " if title else ""
    axes.set_title(f"{shown}accuracy {accuracy:.1%} of {int(counts.sum())}", fontsize=9, color=INK)
    axes.set_xlabel("predicted", fontsize=8, color=INK)
    axes.set_ylabel("true", fontsize=8, color=INK)
    axes.tick_params(labelsize=7, length=0, colors=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return render_svg(figure) if format == "svg" else render_png(figure)
