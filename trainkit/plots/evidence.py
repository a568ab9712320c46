"""A verdict's evidence as a PNG: its series since when, with noise and thresholds; bars of layers, classes, features.

What is drawn follows from what the evidence holds, not from the code of the verdict: a rule that tells new numbers of a
known kind has its picture.
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
from trainkit.plots.learning_curves import GRID, INK, TRAIN, VALIDATION, _png, _style

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
LEFT_OUT = ("first_batch_loss",)
"""Its steps are those of one batch, no part of the run's epochs."""
MOST_PANELS, MOST_BARS, MOST_LAYERS = 4, 16, 32
WIDE = 1e3
"""Largest over smallest value from which on an axis is logarithmic."""
LEAST_SPAN = 0.1
"""Of the largest value: the least height of an axis."""
SIZE = (5.2, 3.5)
BELOW = 0.55
"""Inches below the axes: numbers and the axis's name, or a legend."""


@dataclass(frozen=True, slots=True)
class Panel:
    """What draws one pair of axes, and how many inches stand left of them."""

    draw: Callable[[Axes], None]
    left: float = 0.62


def evidence(verdict: Mapping[str, Any], record: Record) -> bytes:
    """PNG of a verdict (`code`, `confidence`, `since_epoch`, `message`, `evidence`) of that record, in at most 4 panels.

    Bands are +-2 standard errors of the evaluation; what is not finite leaves a gap, which is marked.
    """
    panels = [*_bars(verdict, record), *_courses(verdict, record)][:MOST_PANELS] or [Panel(_nothing)]
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    told = textwrap.wrap(str(verdict["message"]), 78 * columns)[:4]
    head = 0.42 + 0.19 * len(told)
    height = SIZE[1] * rows + head
    width = SIZE[0] * columns
    figure = Figure(figsize=(width, height), dpi=120)
    heading = f"{str(verdict['code']).replace('_', ' ')}, confidence {verdict['confidence']:.2f}"
    figure.text(0.012, 1 - 0.1 / height, heading, fontsize=10.5, color=INK, weight="bold", va="top")
    figure.text(0.012, 1 - 0.34 / height, "\n".join(told), fontsize=8, color=INK, va="top", linespacing=1.25)
    for place, panel in enumerate(panels):
        # Fixed margins: measuring every text to find them costs more than all of the drawing.
        x, y = place % columns * SIZE[0] + panel.left, height - head - (place // columns + 1) * SIZE[1] + BELOW
        size = (SIZE[0] - panel.left - 0.2, SIZE[1] - BELOW - 0.35)
        panel.draw(figure.add_axes((x / width, y / height, size[0] / width, size[1] / height)))
    return _png(figure)


def _nothing(axes: Axes) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, "nothing to draw has been measured", ha="center", va="center", fontsize=9, color=INK)


# courses


def _courses(verdict: Mapping[str, Any], record: Record) -> list[Panel]:
    """A panel for each quantity among the evidence's series, and one of the steps where rates are in question."""
    told = verdict["evidence"]
    groups: dict[str, list[str]] = {}
    for name in told.get("series", ()):
        metric = name.partition("_")[2]
        if name in record.series and not name.endswith("_se") and metric not in LEFT_OUT and not _still(record, name):
            quantity = metric.partition(".")[0]
            groups.setdefault(PANELS.get(quantity, quantity), []).append(name)
    per_epoch = _steps_per_epoch(record)
    made: list[Panel] = []
    for quantity, names in groups.items():
        layers = [name for name in names if name.startswith("layers_")]
        whole = [name for name in names if name not in layers]

        def draw(
            axes: Axes, quantity: str = quantity, whole: list[str] = whole, layers: list[str] = layers[:MOST_LAYERS]
        ) -> None:
            _layer_lines(axes, record, layers, per_epoch)
            _lines(axes, record, whole, per_epoch)
            _marks(axes, verdict, record, quantity)
            _finish(axes, quantity, layers=bool(layers))

        made.append(Panel(draw))
    steps = relative_steps(record) if "lr" in told else None
    if steps is not None:
        made.insert(1, Panel(lambda axes: _step_lengths(axes, steps, per_epoch, verdict)))
    return made


def _still(record: Record, name: str) -> bool:
    """A rate that never moves is told by one number."""
    return name == "train_lr" and len(set(record.series[name].value.tolist())) < 2


def _steps_per_epoch(record: Record) -> float:
    """The last step of an epoch over the epoch: of all rows the largest."""
    found = [
        float((one.step[one.epoch > 0] / one.epoch[one.epoch > 0]).max())
        for name, one in record.series.items()
        if not name.startswith("sanity_check_") and (one.epoch > 0).any()
    ]
    return max(found, default=1.0) or 1.0


def _lines(axes: Axes, record: Record, names: Iterable[str], per_epoch: float) -> None:
    for name in names:
        series = record.series[name]
        colour, label = LABELS.get(name) or LINES.get(name.partition("_")[0], (INK, name))
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
    """From dark (near the input) to light (near the output); the first, the middle and the last are named."""
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
    """Since when, the best epoch, the baseline's level, thresholds."""
    told = verdict["evidence"]
    best = told.get("best_epoch")
    if best is not None:
        axes.axvline(best, color=INK, linewidth=0.9, linestyle=(0, (1, 2)), label=f"best: epoch {best}")
    _since(axes, verdict)
    baseline = told.get("baseline_loss") or record.baseline
    top = axes.get_ylim()[1]
    if quantity == "loss" and baseline and top < 20 * baseline:
        axes.axhline(baseline, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label=f"a constant's: {baseline:.3g}")
    if quantity in ("dead_units", "saturated_units"):
        _threshold(axes, told.get("threshold"), "threshold of all", across=True)
        axes.set_ylim(-0.03, 1.03)


def _since(axes: Axes, verdict: Mapping[str, Any]) -> None:
    since = verdict["since_epoch"]
    if since is not None:
        axes.axvline(since, color=VALIDATION, linewidth=1.1, linestyle=(0, (4, 2)), label=f"since epoch {since}")


def _finish(axes: Axes, quantity: str, *, layers: bool) -> None:
    """A logarithmic axis where values differ that much, and never so short a one that rounding errors look like a course."""
    courses = [
        np.asarray(line.get_ydata(), float) for line in axes.get_lines() if line.get_transform() == axes.transData
    ]
    values = np.concatenate(courses or [np.empty(0)])
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    if len(positive) and positive.max() / positive.min() >= WIDE:
        if (values > 0).all():
            axes.set_yscale("log")
        else:
            axes.set_yscale("symlog", linthresh=float(positive.min()))
        axes.minorticks_off()
    elif len(values):
        low, high = axes.get_ylim()
        short = LEAST_SPAN * float(np.abs(values).max()) - (high - low)
        if short > 0:
            axes.set_ylim(low - short / 2, high + short / 2)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.4g}"))  # no offset that has to be added in one's head
    title = TITLES.get(quantity, quantity) + (" by layer" if layers else "")
    _style(axes, "epoch", title[0].upper() + title[1:])
    _legend(axes)


def _step_lengths(axes: Axes, steps: Series, per_epoch: float, verdict: Mapping[str, Any]) -> None:
    marker = "o" if len(steps) <= 30 else ""
    axes.plot(
        steps.step / per_epoch, steps.value, color=TRAIN, linewidth=1.4, marker=marker, markersize=3, label="a step"
    )
    axes.axhline(LARGE_STEP, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label=f"large: {LARGE_STEP:g}")
    axes.axhline(1e-3, color=INK, linewidth=0.9, linestyle=(0, (1, 2)), label="usual: 0.001")
    _since(axes, verdict)
    if (steps.value > 0).all():
        axes.set_yscale("log")
        axes.minorticks_off()
    _style(axes, "epoch", "Length of a step over the norm of the weights")
    _legend(axes)


# bars


def _bars(verdict: Mapping[str, Any], record: Record) -> list[Panel]:
    """Panels of what is one number a layer, a class, a feature or a part."""
    told, evaluation = verdict["evidence"], record.evaluation or {}
    made: list[Panel] = []
    if shares := told.get("share_by_layer"):
        made.append(Panel(lambda axes: _of_units(axes, shares, told), _left(shares)))
    if reach := told.get("reach_by_layer"):
        made.append(Panel(lambda axes: _of_reach(axes, reach, told), _left(reach)))
    if norms := told.get("first_grad_norm_by_layer"):
        title = "Norm of the gradient at the first look, by layer"
        made.append(Panel(lambda axes: _bar_panel(axes, norms, title, log=True), _left(norms)))
    if features := told.get("largest_features"):
        made.append(Panel(lambda axes: _of_features(axes, features, told), _left(features)))
    if "evenness_of_errors" in told and evaluation.get("confusion_matrix"):
        made.append(Panel(lambda axes: _of_errors(axes, record), _left(map(str, evaluation.get("classes") or ()))))
    if "ratio" in told and evaluation.get("per_class"):
        names = [_short(str(row["class"])) + " (1000)" for row in evaluation["per_class"]]
        made.append(Panel(lambda axes: _of_classes(axes, record), _left(names)))
    elif isinstance(told.get("samples"), dict):
        counts = told["samples"]
        made.append(Panel(lambda axes: _bar_panel(axes, counts, "Samples of each class"), _left(counts)))
    if told.get("validation") is not None and told.get("test") is not None:
        made.append(Panel(lambda axes: _of_parts(axes, told), _left(("validation",))))
    if isinstance(told.get("share"), float) and not shares:
        made.append(Panel(lambda axes: _of_share(axes, told), _left(("samples",))))
    if told.get("mse_over_mae_squared") is not None:
        made.append(Panel(lambda axes: _of_residuals(axes, told), _left(("normal residuals",))))
    return made


def _left(names: Iterable[str]) -> float:
    """Inches that the longest of them takes at a size of 7 points."""
    return 0.3 + 0.064 * max((len(_short(name)) for name in names), default=4)


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
    """Bars from top to bottom in the order given, each with its number; of many the first and the last ones."""
    names = list(values)
    if len(names) > MOST_BARS:
        names = [*names[: MOST_BARS // 2], *names[-MOST_BARS // 2 :]]
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
    axes.set_title(title, fontsize=9, color=INK, loc="left")
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


def _of_units(axes: Axes, shares: Mapping[str, float], told: Mapping[str, Any]) -> None:
    _threshold(axes, told.get("threshold"), "threshold of all")
    _threshold(axes, told.get("layer_threshold"), "of one layer", dotted=True)
    _bar_panel(axes, shares, "Idle units at the end, by layer (input first)", share=True)


def _of_reach(axes: Axes, reach: Mapping[str, float], told: Mapping[str, Any]) -> None:
    last = list(reach.values())[-1]
    if last and told.get("threshold"):
        _threshold(axes, told["threshold"] * last, f"{told['threshold']:g} of the last one's")
    _bar_panel(axes, reach, "Gradient times weights, by layer (input first)", log=True)


def _of_features(axes: Axes, features: Mapping[str, float], told: Mapping[str, Any]) -> None:
    _threshold(axes, (told.get("thresholds") or {}).get("rms"), "threshold")
    _threshold(axes, told.get("median_rms"), "median of all inputs", dotted=True)
    _bar_panel(axes, features, "Root mean square of the largest inputs", log=True)


def _of_classes(axes: Axes, record: Record) -> None:
    """Recall of each class, largest first, with +-2 sqrt(r (1-r) / n)."""
    rows = sorted((record.evaluation or {})["per_class"], key=lambda row: -row["support"])
    recall = {f"{_short(str(row['class']))} ({row['support']})": float(row["recall"]) for row in rows}
    support = [max(1, int(row["support"])) for row in rows]
    errors = {name: math.sqrt(r * (1 - r) / n) for (name, r), n in zip(recall.items(), support, strict=True)}
    _bar_panel(axes, recall, f"Recall of each class, {_part(record)} part (samples)", share=True, errors=errors)


def _of_errors(axes: Axes, record: Record) -> None:
    """The confusion matrix without its diagonal: errors of a few pairs are hard classes, even ones look like noise."""
    told = record.evaluation or {}
    counts, names = (
        np.array(told["confusion_matrix"], float),
        [str(name) for name in told.get("classes") or range(len(told["confusion_matrix"]))],
    )
    np.fill_diagonal(counts, np.nan)
    image = axes.imshow(counts, cmap="Blues", vmin=0)
    axes.figure.colorbar(image, ax=axes, fraction=0.045, pad=0.02).ax.tick_params(labelsize=7, length=0, colors=INK)
    every = max(1, len(names) // MOST_BARS)
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


def _of_parts(axes: Axes, told: Mapping[str, Any]) -> None:
    metric = str(told.get("metric", "metric"))
    values = {"validation": float(told["validation"]), "test": float(told["test"])}
    colours = {"validation": VALIDATION, "test": TEST}
    share = metric == "accuracy"
    note = (
        f"{metric}: {told['difference']:.3g} worse, +-{2 * told['standard_error']:.2g}"
        if "standard_error" in told
        else metric
    )
    _bar_panel(axes, values, note[0].upper() + note[1:], share=share, colours=colours)


def _of_share(axes: Axes, told: Mapping[str, Any]) -> None:
    _threshold(axes, told.get("threshold"), "threshold")
    _bar_panel(axes, {"samples": told["share"]}, "Share of samples that the report names", share=True)


def _of_residuals(axes: Axes, told: Mapping[str, Any]) -> None:
    _threshold(axes, told.get("threshold"), "threshold")
    values = {"this run": told["mse_over_mae_squared"], "normal residuals": math.pi / 2}
    _bar_panel(axes, values, "Mean squared error over mae squared", colours={"normal residuals": FAINT})


def _legend(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if unique:
        axes.legend(unique.values(), unique.keys(), frameon=True, framealpha=0.75, edgecolor="none", fontsize=7)


def _short(name: str) -> str:
    """The end of a long path is what tells layers apart."""
    return name if len(name) <= 22 else f"…{name[-21:]}"
