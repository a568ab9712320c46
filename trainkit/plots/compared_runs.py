"""Curves of several runs of one spec with one change each: an investigation's log, and the evidence of its verdicts."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainkit.diagnose.record import Series
from trainkit.plots.style import INK, TRAIN, VALIDATION, literal, render_png, render_svg, style_epoch_axes

Runs = Mapping[str, Mapping[str, Series]]
"""Run -> metric -> series, the unchanged run first."""
COLOURS = (INK, VALIDATION, TRAIN, "#2e8b57", "#7d5ba6", "#9db7da")
MAX_RUNS = 20
SIZE = (5.2, 3.5)
MAX_PANELS = 2
LOG_RATIO = 1e3
"""Largest over smallest value from which on an axis is logarithmic."""


def evidence_of_runs(verdict: Mapping[str, Any], runs: Runs) -> bytes:
    """Draw the series that show a measured verdict over their epochs as PNG, a panel for each metric, at most 2.

    Args:
        verdict: `code`, `confidence`, `message` and `evidence`; `evidence` has `metric`, `gain`, `low` and `high`.
        runs: the unchanged run and those with the change.
    """
    heading = f"{str(verdict['code']).replace('_', ' ')}, confidence {verdict['confidence']:.2f}"
    return render_png(_figure(heading, str(verdict["message"]), runs, verdict["evidence"]))


def curves_of_runs(title: str, runs: Runs, format: Literal["png", "svg"] = "png") -> bytes:
    """Draw the series of up to 20 runs over their epochs, a panel for each metric, at most 2."""
    figure = _figure(title, "", runs, {})
    return render_svg(figure) if format == "svg" else render_png(figure)


def _figure(heading: str, message: str, runs: Runs, effect: Mapping[str, Any]) -> Figure:
    runs = dict(list(runs.items())[:MAX_RUNS])
    metrics = list(dict.fromkeys(metric for series in runs.values() for metric in series))[:MAX_PANELS]
    columns = max(1, len(metrics))
    lines = textwrap.wrap(message, 78 * columns)[:4]
    head = 0.42 + 0.19 * len(lines)
    width, height = SIZE[0] * columns, SIZE[1] + head
    figure = Figure(figsize=(width, height), dpi=120)
    figure.text(0.012, 1 - 0.1 / height, literal(heading), fontsize=10.5, color=INK, weight="bold", va="top")
    text = "\n".join(map(literal, lines))
    figure.text(0.012, 1 - 0.34 / height, text, fontsize=8, color=INK, va="top", linespacing=1.25)
    if not metrics:
        figure.text(0.5, 0.4, "no data to plot", ha="center", fontsize=9, color=INK)
    for place, metric in enumerate(metrics):
        left, bottom, size = place * SIZE[0] + 0.62, 0.55, (SIZE[0] - 0.82, SIZE[1] - 0.9)
        axes = figure.add_axes((left / width, bottom / height, size[0] / width, size[1] / height))
        _draw(axes, metric, {name: series[metric] for name, series in runs.items() if metric in series}, effect)
    return figure


def _draw(axes: Axes, metric: str, runs: Mapping[str, Series], effect: Mapping[str, Any]) -> None:
    values = []
    for place, (name, series) in enumerate(runs.items()):
        colour = COLOURS[place] if len(runs) <= len(COLOURS) else colormaps["tab20"](place % 20)
        finite = np.where(np.isfinite(series.value), series.value, np.nan)
        marker = "o" if len(series) <= 30 else ""
        axes.plot(series.epoch, finite, color=colour, linewidth=1.7, marker=marker, markersize=3, label=literal(name))
        values.append(finite[np.isfinite(finite)])
    positive = np.concatenate(values) if values else np.empty(0)
    if len(positive) and positive.min() > 0 and positive.max() / positive.min() >= LOG_RATIO:
        axes.set_yscale("log")
        axes.minorticks_off()
    title = metric.replace("_", " ")
    if effect.get("metric") == metric and effect.get("gain") is not None:
        title += f": better by {effect['gain']:.3g}"
        if effect.get("low") is not None and effect.get("high") is not None:
            title += f" ({effect['low']:.3g} to {effect['high']:.3g})"
    style_epoch_axes(axes, "epoch", title[0].upper() + title[1:])
    if runs:
        axes.legend(frameon=True, framealpha=0.75, edgecolor="none", fontsize=7 if len(runs) < 8 else 5.5)
