"""Plots of the evidence of a verdict as PNG: its series with noise and thresholds, and bars of layers, classes, features.

The panels depend on the keys of the evidence and not on the code of the verdict, so new rules with known keys are drawn.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from trainkit.diagnose.rates import LARGE_STEP, relative_steps
from trainkit.diagnose.record import Record, Series
from trainkit.plots.style import GRID, INK, TRAIN, VALIDATION, literal, render_png, style_epoch_axes

TEST, PROBE, FAINT = "#2e8b57", "#7d5ba6", "#9db7da"
LINES: dict[str, tuple[str, str]] = {
    "train": (TRAIN, "training"),
    "val": (VALIDATION, "validation"),
    "test": (TEST, "test"),
    "sanity_check": (PROBE, "sanity check"),
}
LABELS = {
    "train_batch_loss": (FAINT, "one batch"),
    "sanity_check_small_model_loss": (PROBE, "smaller model (sanity check)"),
    "val_recall": (VALIDATION, "validation, mean recall of the classes"),
    "val_f1": (TEST, "validation, mean F1 of the classes"),
}
PANELS = {
    "batch_loss": "loss",
    "small_model_loss": "loss",
    "recall": "shares of the classes",
    "f1": "shares of the classes",
}
TITLES = {
    "lr": "learning rate",
    "grad_norm": "norm of the gradient",
    "weight_norm": "norm of the weights",
    "dead_units": "share of dead units",
    "saturated_units": "share of saturated units",
    "mse": "mean squared error",
    "mae": "mean absolute error",
}
SKIPPED_SERIES = ("first_batch_loss",)
"""Its steps are those of a single batch and do not belong to the epochs of the run."""
MAX_PANELS, MAX_BARS, MAX_LAYERS = 4, 16, 32
LOG_RATIO = 1e3
"""Largest over smallest value from which on an axis is logarithmic."""
MIN_SPAN = 0.1
"""Least height of an axis, as a share of the largest value."""
SIZE = (5.2, 3.5)
BELOW = 0.55
"""Inches below the axes, for tick labels and the axis label or a legend."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A function that draws one pair of axes, and the inches left of them."""

    draw: Callable[[Axes], None]
    left: float = 0.62


def evidence(verdict: Mapping[str, Any], record: Record) -> bytes:
    """Draw a verdict (`code`, `confidence`, `since_epoch`, `message`, `evidence`) of a record in at most 4 panels.

    Bands are +-2 standard errors; values that are not finite leave a marked gap.
    """
    panels = [*_bars(verdict, record), *_curves(verdict, record)][:MAX_PANELS] or [Panel(_empty_panel)]
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    lines = textwrap.wrap(str(verdict["message"]), 78 * columns)[:4]
    head = 0.42 + 0.19 * len(lines)
    height = SIZE[1] * rows + head
    width = SIZE[0] * columns
    figure = Figure(figsize=(width, height), dpi=120)
    heading = f"{str(verdict['code']).replace('_', ' ')}, confidence {verdict['confidence']:.2f}"
    figure.text(0.012, 1 - 0.1 / height, heading, fontsize=10.5, color=INK, weight="bold", va="top")
    figure.text(
        0.012, 1 - 0.34 / height, "\n".join(map(literal, lines)), fontsize=8, color=INK, va="top", linespacing=1.25
    )
    for place, panel in enumerate(panels):
        # Fixed margins: a layout that measures all texts takes longer than drawing.
        x, y = place % columns * SIZE[0] + panel.left, height - head - (place // columns + 1) * SIZE[1] + BELOW
        size = (SIZE[0] - panel.left - 0.2, SIZE[1] - BELOW - 0.35)
        panel.draw(figure.add_axes((x / width, y / height, size[0] / width, size[1] / height)))
    return render_png(figure)


def _empty_panel(axes: Axes) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, "no data to plot", ha="center", va="center", fontsize=9, color=INK)


# series


def _curves(verdict: Mapping[str, Any], record: Record) -> list[Panel]:
    """Return a panel for each quantity in the evidence's series, and one of relative steps for rules about rates."""
    numbers = verdict["evidence"]
    groups: dict[str, list[str]] = {}
    for name in numbers.get("series", ()):
        metric = name.partition("_")[2]
        if (
            name in record.series
            and not name.endswith("_se")
            and metric not in SKIPPED_SERIES
            and not _is_constant(record, name)
        ):
            quantity = metric.partition(".")[0]
            groups.setdefault(PANELS.get(quantity, quantity), []).append(name)
    per_epoch = _steps_per_epoch(record)
    panels: list[Panel] = []
    for quantity, names in groups.items():
        layers = [name for name in names if name.startswith("layers_")]
        whole = [name for name in names if name not in layers]

        def draw(
            axes: Axes, quantity: str = quantity, whole: list[str] = whole, layers: list[str] = layers[:MAX_LAYERS]
        ) -> None:
            _layer_lines(axes, record, layers, per_epoch)
            _lines(axes, record, whole, per_epoch)
            _marks(axes, verdict, record, quantity)
            _finish(axes, quantity, layers=bool(layers))

        panels.append(Panel(draw))
    steps = relative_steps(record) if "lr" in numbers else None
    if steps is not None:
        panels.insert(1, Panel(lambda axes: _step_lengths(axes, steps, per_epoch, verdict)))
    return panels


def _is_constant(record: Record, name: str) -> bool:
    """Return whether the series is a constant learning rate, which needs no panel."""
    return name == "train_lr" and len(set(record.series[name].value.tolist())) < 2


def _steps_per_epoch(record: Record) -> float:
    """Return the number of steps per epoch: the largest step / epoch of all rows."""
    found = [
        float((one.step[one.epoch > 0] / one.epoch[one.epoch > 0]).max())
        for name, one in record.series.items()
        if not name.startswith("sanity_check_") and (one.epoch > 0).any()
    ]
    return max(found, default=1.0) or 1.0


def _lines(axes: Axes, record: Record, names: Iterable[str], per_epoch: float) -> None:
    for name in names:
        series = record.series[name]
        colour, label = LABELS.get(name) or LINES.get(name.partition("_")[0], (INK, literal(name)))
        x, y = series.step / per_epoch, np.where(np.isfinite(series.value), series.value, np.nan)
        faint = name == "train_batch_loss"
        marker = "o" if len(y) <= 30 and not faint else ""
        axes.plot(
            x,
            y,
            color=colour,
            label=label,
            linewidth=1.0 if faint else 1.7,
            marker=marker,
            markersize=3,
            zorder=2 - faint,
        )
        errors = record.series.get(f"{name}_se")
        if errors is not None and len(errors):
            se = np.interp(series.step, errors.step, np.where(np.isfinite(errors.value), errors.value, 0.0))
            label = "+-2 standard errors"
            axes.fill_between(x, y - 2 * se, y + 2 * se, color=colour, alpha=0.15, linewidth=0, label=label)
        if not np.isfinite(series.value).all():
            begun = float(x[~np.isfinite(series.value)][0])
            axes.axvspan(
                begun, max(float(x[-1]), begun + 0.5), color=VALIDATION, alpha=0.12, linewidth=0, label="not finite"
            )


def _layer_lines(axes: Axes, record: Record, names: list[str], per_epoch: float) -> None:
    """Draw layers from dark (input) to light (output); the first, middle and last one are labelled."""
    order = list(record.layers(names[0].partition(".")[0].removeprefix("layers_"))) if names else []
    names = sorted(names, key=lambda name: order.index(name.partition(".")[2]))
    named = {0, len(names) // 2, len(names) - 1} if len(names) > 6 else set(range(len(names)))
    for place, name in enumerate(names):
        series = record.get(name)
        colour = colormaps["viridis"](0.9 * place / max(1, len(names) - 1))
        label = _short(name.partition(".")[2]) if place in named else None
        marker = "o" if len(series) <= 30 else ""
        axes.plot(
            series.step / per_epoch, series.value, color=colour, linewidth=1.1, marker=marker, markersize=2, label=label
        )


def _marks(axes: Axes, verdict: Mapping[str, Any], record: Record, quantity: str) -> None:
    """Mark the best epoch, the first epoch of the verdict, the baseline loss and thresholds."""
    numbers = verdict["evidence"]
    best = numbers.get("best_epoch")
    if best is not None:
        axes.axvline(best, color=INK, linewidth=0.9, linestyle=(0, (1, 2)), label=f"best: epoch {best}")
    _since(axes, verdict)
    baseline = numbers.get("baseline_loss") or record.baseline
    top = axes.get_ylim()[1]
    if quantity == "loss" and baseline and top < 20 * baseline:
        axes.axhline(
            baseline, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label=f"constant prediction: {baseline:.3g}"
        )
    if quantity in ("dead_units", "saturated_units"):
        _threshold(axes, numbers.get("threshold"), "threshold of all", across=True)
        axes.set_ylim(-0.03, 1.03)


def _since(axes: Axes, verdict: Mapping[str, Any]) -> None:
    since = verdict["since_epoch"]
    if since is not None:
        axes.axvline(since, color=VALIDATION, linewidth=1.1, linestyle=(0, (4, 2)), label=f"since epoch {since}")


def _finish(axes: Axes, quantity: str, *, layers: bool) -> None:
    """Scale the y axis: logarithmic for a wide range, and not so short that rounding errors look like a trend."""
    curves = [
        np.asarray(line.get_ydata(), float) for line in axes.get_lines() if line.get_transform() == axes.transData
    ]
    values = np.concatenate(curves or [np.empty(0)])
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    if len(positive) and positive.max() / positive.min() >= LOG_RATIO:
        if (values > 0).all():
            axes.set_yscale("log")
        else:
            axes.set_yscale("symlog", linthresh=float(positive.min()))
        axes.minorticks_off()
    elif len(values):
        low, high = axes.get_ylim()
        short = MIN_SPAN * float(np.abs(values).max()) - (high - low)
        if short > 0:
            axes.set_ylim(low - short / 2, high + short / 2)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.4g}"))  # without an offset
    title = TITLES.get(quantity, quantity) + (" by layer" if layers else "")
    style_epoch_axes(axes, "epoch", title[0].upper() + title[1:])
    _legend(axes)


def _step_lengths(axes: Axes, steps: Series, per_epoch: float, verdict: Mapping[str, Any]) -> None:
    marker = "o" if len(steps) <= 30 else ""
    axes.plot(
        steps.step / per_epoch,
        steps.value,
        color=TRAIN,
        linewidth=1.4,
        marker=marker,
        markersize=3,
        label="relative step",
    )
    axes.axhline(LARGE_STEP, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label=f"large: {LARGE_STEP:g}")
    axes.axhline(1e-3, color=INK, linewidth=0.9, linestyle=(0, (1, 2)), label="usual: 0.001")
    _since(axes, verdict)
    if (steps.value > 0).all():
        axes.set_yscale("log")
        axes.minorticks_off()
    style_epoch_axes(axes, "epoch", "Length of a step over the norm of the weights")
    _legend(axes)


# bars


def _bars(verdict: Mapping[str, Any], record: Record) -> list[Panel]:
    """Return panels of numbers by layer, class, feature or part."""
    numbers, evaluation = verdict["evidence"], record.evaluation or {}
    panels: list[Panel] = []
    if shares := numbers.get("share_by_layer"):
        panels.append(Panel(lambda axes: _idle_units_panel(axes, shares, numbers), _left(shares)))
    if reach := numbers.get("reach_by_layer"):
        panels.append(Panel(lambda axes: _reach_panel(axes, reach, numbers), _left(reach)))
    if norms := numbers.get("first_grad_norm_by_layer"):
        title = "Norm of the gradient at the first log step, by layer"
        panels.append(Panel(lambda axes: _bar_panel(axes, norms, title, log=True), _left(norms)))
    if features := numbers.get("largest_features"):
        panels.append(Panel(lambda axes: _features_panel(axes, features, numbers), _left(features)))
    if "conflicting_samples" in numbers and evaluation.get("confusion_matrix"):
        panels.append(Panel(lambda axes: _errors_panel(axes, record), _left(map(str, evaluation.get("classes") or ()))))
    if "ratio" in numbers and evaluation.get("per_class"):
        names = [_cut(str(row["class"])) + " (1000)" for row in evaluation["per_class"]]
        panels.append(Panel(lambda axes: _recall_panel(axes, record), _left(names)))
    elif isinstance(numbers.get("samples"), dict):
        counts = numbers["samples"]
        panels.append(Panel(lambda axes: _bar_panel(axes, counts, "Samples of each class"), _left(counts)))
    if numbers.get("validation") is not None and numbers.get("test") is not None:
        panels.append(Panel(lambda axes: _parts_panel(axes, numbers), _left(("validation",))))
    if isinstance(numbers.get("share"), float) and not shares:
        panels.append(Panel(lambda axes: _share_panel(axes, numbers), _left(("samples",))))
    if numbers.get("mse_over_mae_squared") is not None:
        panels.append(Panel(lambda axes: _residuals_panel(axes, numbers), _left(("normal residuals",))))
    return panels


def _left(names: Iterable[str]) -> float:
    """Return the width in inches of the longest name at 7 points."""
    return 0.3 + 0.064 * max((len(_cut(name)) for name in names), default=4)


def _bar_panel(
    axes: Axes,
    values: Mapping[str, float],
    title: str,
    *,
    log: bool = False,
    share: bool = False,
    errors: Mapping[str, float] | None = None,
    colours: Mapping[str, str] | None = None,
) -> None:
    """Draw bars from top to bottom, each with its number; of many only the first and the last ones."""
    names = list(values)
    if len(names) > MAX_BARS:
        names = [*names[: MAX_BARS // 2], *names[-MAX_BARS // 2 :]]
    finite = [float(values[n]) if values[n] is not None and math.isfinite(values[n]) else 0.0 for n in names]
    log = log and any(v > 0 for v in finite)
    places = np.arange(len(names))
    fill = [(colours or {}).get(name, TRAIN) for name in names]
    axes.barh(places, finite, height=0.62, color=fill, zorder=2)
    axes.set_yticks(places, [_short(name) for name in names])
    axes.invert_yaxis()
    positive = [v for v in finite if v > 0]
    if log:
        marked = [float(np.ravel(line.get_xdata())[0]) for line in axes.get_lines()]
        seen = [*positive, *(value for value in marked if value > 0)]
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xlim(10.0 ** math.floor(math.log10(min(seen) / 2)), 10.0 ** math.ceil(math.log10(max(seen) * 3)))
    elif share:
        axes.set_xlim(0, 1.12)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    else:
        axes.set_xlim(min(0.0, *finite) * 1.15, max(positive, default=1.0) * 1.2)
    if errors is not None:
        spread = [2 * errors.get(name, 0.0) for name in names]
        axes.errorbar(finite, places, xerr=spread, fmt="none", ecolor=INK, elinewidth=1, capsize=2.5, zorder=3)
    for place, (name, value) in enumerate(zip(names, finite, strict=True)):
        text = "not finite" if values[name] is None or not math.isfinite(values[name]) else f"{value:.3g}"
        text = f"{value:.0%}" if share else text
        end = value + (2 * errors.get(name, 0.0) if errors else 0.0)
        start = end if value > 0 or not log else axes.get_xlim()[0]
        axes.annotate(
            text,
            (start, place),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=INK,
            zorder=4,
        )
    _style_bars(axes, title)


def _style_bars(axes: Axes, title: str) -> None:
    axes.set_title(literal(title), fontsize=9, color=INK, loc="left")
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7, length=0, colors=INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "left")
        spine.set_color(GRID)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.06), ncols=2, frameon=False, fontsize=7)


def _threshold(axes: Axes, value: float | None, what: str, *, across: bool = False, dotted: bool = False) -> None:
    if value is not None:
        line = axes.axhline if across else axes.axvline
        style = (0, (1, 2)) if dotted else (0, (4, 3))
        line(value, color=INK, linewidth=1.0, linestyle=style, label=f"{what}: {value:.3g}", zorder=3)


def _idle_units_panel(axes: Axes, shares: Mapping[str, float], numbers: Mapping[str, Any]) -> None:
    _threshold(axes, numbers.get("threshold"), "threshold of all")
    _threshold(axes, numbers.get("layer_threshold"), "of one layer", dotted=True)
    _bar_panel(axes, shares, "Idle units at the end, by layer (input first)", share=True)


def _reach_panel(axes: Axes, reach: Mapping[str, float], numbers: Mapping[str, Any]) -> None:
    last = list(reach.values())[-1]
    if last and numbers.get("threshold"):
        _threshold(axes, numbers["threshold"] * last, f"{numbers['threshold']:g} of the last one's")
    _bar_panel(axes, reach, "Gradient times weights, by layer (input first)", log=True)


def _features_panel(axes: Axes, features: Mapping[str, float], numbers: Mapping[str, Any]) -> None:
    _threshold(axes, (numbers.get("thresholds") or {}).get("rms"), "threshold")
    _threshold(axes, numbers.get("median_rms"), "median of all inputs", dotted=True)
    _bar_panel(axes, features, "Root mean square of the largest inputs", log=True)


def _recall_panel(axes: Axes, record: Record) -> None:
    """Draw the recall of each class, largest class first, with +-2 sqrt(r (1-r) / n)."""
    rows = sorted((record.evaluation or {})["per_class"], key=lambda row: -row["support"])
    recall = {f"{_cut(str(row['class']))} ({row['support']})": float(row["recall"]) for row in rows}
    support = [max(1, int(row["support"])) for row in rows]
    errors = {name: math.sqrt(r * (1 - r) / n) for (name, r), n in zip(recall.items(), support, strict=True)}
    _bar_panel(axes, recall, f"Recall of each class, {_part(record)} part (samples)", share=True, errors=errors)


def _errors_panel(axes: Axes, record: Record) -> None:
    """Draw the confusion matrix without its diagonal: which classes are taken for which."""
    evaluation = record.evaluation or {}
    counts, names = (
        np.array(evaluation["confusion_matrix"], float),
        [str(name) for name in evaluation.get("classes") or range(len(evaluation["confusion_matrix"]))],
    )
    np.fill_diagonal(counts, np.nan)
    image = axes.imshow(counts, cmap="Blues", vmin=0)
    axes.figure.colorbar(image, ax=axes, fraction=0.045, pad=0.02).ax.tick_params(labelsize=7, length=0, colors=INK)
    every = max(1, len(names) // MAX_BARS)
    places = range(0, len(names), every)
    axes.set_xticks(places, [_short(name) for name in names[::every]], rotation=45 if len(names) > 10 else 0)
    axes.set_yticks(places, [_short(name) for name in names[::every]])
    axes.set_xlabel("predicted", fontsize=8, color=INK)
    axes.set_ylabel("true", fontsize=8, color=INK)
    _style_bars(axes, f"Errors of the {_part(record)} part")
    axes.grid(visible=False)


def _part(record: Record) -> str:
    name = str((record.evaluation or {}).get("split", "held-out"))
    return LINES[name][1] if name in LINES else name


def _parts_panel(axes: Axes, numbers: Mapping[str, Any]) -> None:
    metric = str(numbers.get("metric", "metric"))
    values = {"validation": float(numbers["validation"]), "test": float(numbers["test"])}
    colours = {"validation": VALIDATION, "test": TEST}
    share = metric == "accuracy"
    note = (
        f"{metric}: {numbers['difference']:.3g} worse, +-{2 * numbers['standard_error']:.2g}"
        if "standard_error" in numbers
        else metric
    )
    _bar_panel(axes, values, note[0].upper() + note[1:], share=share, colours=colours)


def _share_panel(axes: Axes, numbers: Mapping[str, Any]) -> None:
    _threshold(axes, numbers.get("threshold"), "threshold")
    _bar_panel(axes, {"samples": numbers["share"]}, "Share of samples in the report's findings", share=True)


def _residuals_panel(axes: Axes, numbers: Mapping[str, Any]) -> None:
    _threshold(axes, numbers.get("threshold"), "threshold")
    values = {"this run": numbers["mse_over_mae_squared"], "normal residuals": math.pi / 2}
    _bar_panel(axes, values, "Mean squared error over mae squared", colours={"normal residuals": FAINT})


def _legend(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if unique:
        axes.legend(unique.values(), unique.keys(), frameon=True, framealpha=0.75, edgecolor="none", fontsize=7)


def _short(name: str) -> str:
    return literal(_cut(name))


def _cut(name: str) -> str:
    """Shorten a long name from the left, because layers differ at the end of their path."""
    return name if len(name) <= 22 else f"…{name[-21:]}"
