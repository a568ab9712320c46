"""Learning curves as PNG or SVG bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainkit.plots.style import INK, TEST, TRAIN, VALIDATION, literal, render_png, render_svg, style_epoch_axes

COLOURS = {"train": TRAIN, "val": VALIDATION, "test": TEST}
NAMES = {"train": "training", "val": "validation", "test": "test"}
SECOND_PANEL = ("accuracy", "r2", "mse", "mae")
"""The right-hand panel shows the first of these metrics that was measured."""


LOG_RANGE = 100.0


def curves(
    rows: Iterable[Mapping[str, Any]],
    *,
    best_epoch: int | None = None,
    title: str = "",
    format: Literal["png", "svg"] = "png",
) -> bytes:
    """Draw loss, and accuracy (or r2, mse, mae), of training, validation and test over the epochs.

    `rows`: `{epoch, split, name, value}`; the last row of an epoch counts. Non-finite values leave gaps and are marked.
    Positive values over more than two decades have a logarithmic axis.
    """
    series: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        if row["value"] is not None:
            series.setdefault((row["name"], row["split"]), {})[int(row["epoch"])] = float(row["value"])
    second = next((name for name in SECOND_PANEL if any((name, split) in series for split in COLOURS)), None)
    panels = ["loss", *([second] if second else [])]
    figure = Figure(figsize=(5.2 * len(panels), 3.6), dpi=120)
    for place, name in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        for split in COLOURS:
            _line(axes, series.get((name, split), {}), split)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label=f"best: epoch {best_epoch}")
        style_epoch_axes(axes, "epoch", name)
        if _needs_log_axis([value for split in COLOURS for value in series.get((name, split), {}).values()]):
            axes.set_yscale("log")
        if any((name, split) in series for split in COLOURS):
            # beside the panel's name: nothing is covered
            axes.legend(
                frameon=False,
                fontsize=7.5,
                ncols=4,
                loc="lower right",
                bbox_to_anchor=(1.0, 0.985),
                borderaxespad=0.0,
                handlelength=1.4,
                columnspacing=1.0,
                handletextpad=0.5,
            )
    if title:
        figure.suptitle(literal(title), fontsize=10, color=INK, x=0.02, ha="left")
    # Fixed margins: a layout that measures all texts takes longer than drawing.
    side = 0.55 / (5.2 * len(panels))
    figure.subplots_adjust(left=1.2 * side, right=1 - 0.4 * side, bottom=0.14, top=0.84 if title else 0.91, wspace=0.16)
    return render_svg(figure) if format == "svg" else render_png(figure)


def _needs_log_axis(values: list[float]) -> bool:
    """Whether the finite values are positive and span more than `LOG_RANGE`."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) / min(finite) > LOG_RANGE


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
