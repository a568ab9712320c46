"""Previews of datasets as PNG bytes: contact sheets of images and plots of columns."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import NDArray

from trainkit.data import ArrayInputs, Column, Dataset, ImageInputs, SequenceInputs, TableInputs
from trainkit.plots.style import literal
from trainkit.spec.value_range import ValueRange, why_not_colour

BLUE, INK, GRID = "#3b6fb6", "#222831", "#e3e6ea"
COLOURS = (
    "#3b6fb6",
    "#d1495b",
    "#2e8b57",
    "#e09f3e",
    "#7d5ba6",
    "#17a2b8",
    "#8c564b",
    "#e377c2",
    "#7f7f7f",
    "#bcbd22",
    "#1f4e79",
    "#ff7f50",
)
SECONDS_A_DAY = 86400.0
MOST_PANELS = 12
MOST_CHANNELS = 16
"""Channels of an image that a sheet shows, where they are no colours."""


def contact_sheet(
    images: NDArray[np.floating[Any]],
    labels: Sequence[str],
    *,
    columns: int = 5,
    title: str = "",
    colour: bool | None = None,
) -> bytes:
    """Draw a grid of images (n, H, W, C) with values in [0, 1], each with its label, without interpolation.

    Three channels are colours, unless `colour` says otherwise; a single one is grey; others are grey side by side.
    """
    channels = images.shape[3]
    in_colour = channels == 3 if colour is None else colour and channels == 3
    if channels > 1 and not in_colour:
        shown = f"{min(channels, MOST_CHANNELS)} of {channels}" if channels > MOST_CHANNELS else str(channels)
        title = f"{title}  ({shown} channels side by side)".strip()
    rows = math.ceil(len(images) / columns)
    figure = Figure(figsize=(1.35 * columns, 1.5 * rows + (0.4 if title else 0)), dpi=130, layout="constrained")
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        axes = figure.add_subplot(rows, columns, index + 1)
        picture = image if in_colour else _side_by_side(image)
        axes.imshow(np.clip(picture, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        if label:
            axes.set_title(literal(shortened(label, 24)), fontsize=7, color=INK, pad=2)
    if title:
        figure.suptitle(literal(title), fontsize=9, color=INK)
    return png(figure)


def _side_by_side(image: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return the channels of an image (H, W, C) in a grid, white lines between them, as one grey image."""
    channels = min(image.shape[2], MOST_CHANNELS)
    if channels == 1:
        return image[..., 0]
    height, width = image.shape[:2]
    line = max(1, min(height, width) // 16)
    across = math.ceil(math.sqrt(channels))
    down = math.ceil(channels / across)
    grid = np.ones((down * (height + line) - line, across * (width + line) - line), image.dtype)
    for channel in range(channels):
        top, left = channel // across * (height + line), channel % across * (width + line)
        grid[top : top + height, left : left + width] = image[..., channel]
    return grid


def dataset_preview(dataset: Dataset, samples: Sequence[int] | None = None) -> bytes:
    """Draw a preview: labelled images, a few sequences, or the distribution of each column.

    Args:
        dataset: What to draw.
        samples: Positions of the samples to draw, each with its position: images, sequences, or rows of a table.
    """
    inputs = dataset.inputs
    index = None if samples is None else np.asarray(samples, np.int64)
    names = target_names(dataset)
    if (ranges := dataset.image_value_ranges()) is not None:
        chosen = _spread(names, dataset.facts.samples, 30) if index is None else index
        labels = [names[i] if names else "" for i in chosen]
        if index is not None:
            labels = [f"{position}: {label}" for position, label in zip(chosen.tolist(), labels, strict=True)]
        images = in_unit_range(image_values(dataset, chosen), ranges)
        return contact_sheet(images, labels, columns=6, colour=why_not_colour(images.shape[3], ranges) is None)
    if isinstance(inputs, SequenceInputs):
        return _sequences(inputs, names, index)
    if isinstance(inputs, TableInputs):
        columns, target = inputs.columns, dataset.facts.target
    else:
        assert isinstance(inputs, ArrayInputs)
        values = np.asarray(inputs.values).reshape(len(inputs.values), -1)
        shown = range(min(values.shape[1], MOST_PANELS)) if index is not None else range(values.shape[1])
        columns, target = {f"feature {i}": Column(values[:, i].astype(np.float64)) for i in shown}, None
    return _columns(columns, target) if index is None else _rows(columns, target, index, names)


def image_values(dataset: Dataset, index: NDArray[np.int64]) -> NDArray[Any]:
    """Return the chosen images (n, H, W, C), float32, as a network reads them: uint8 divided by 255.

    Raises TypeError for a dataset without images, one whose `image_value_ranges` are None.
    """
    inputs = dataset.inputs
    if isinstance(inputs, ImageInputs):
        return np.asarray(inputs.pixels[index], np.float32) / 255
    if not isinstance(inputs, ArrayInputs) or inputs.values.ndim not in (3, 4):
        raise TypeError(f"the samples of a dataset of kind {dataset.facts.kind} are no images")
    values = np.asarray(inputs.values[index], np.float32)
    values = values[..., None] if values.ndim == 3 else np.moveaxis(values, 1, -1)
    return values / 255 if inputs.values.dtype == np.uint8 else values


def in_unit_range(images: NDArray[Any], ranges: Sequence[ValueRange]) -> NDArray[Any]:
    """Return images (n, H, W, C) with the range of each channel brought to [0, 1]."""
    low, high = np.array(ranges, np.float32).T
    unit: NDArray[Any] = (images - low) / np.where(high > low, high - low, 1)
    return unit


def target_names(dataset: Dataset) -> list[str]:
    """Return the class name of each sample; empty without classes."""
    classes = list(dataset.facts.classes or ())
    if not classes or dataset.targets is None:
        return []
    return [classes[index] for index in np.asarray(dataset.targets).tolist()]


def _spread(names: Sequence[str], count: int, most: int) -> NDArray[np.int64]:
    """Return up to `most` positions, taken from the classes in turn."""
    if not names:
        return np.arange(min(count, most))
    by_class: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        by_class.setdefault(name, []).append(position)
    turns = [members[: math.ceil(most / len(by_class)) + 1] for _, members in sorted(by_class.items())]
    interleaved = [members[turn] for turn in range(max(map(len, turns))) for members in turns if turn < len(members)]
    return np.array(sorted(interleaved[:most], key=lambda p: (names[p], p)), np.int64)


def _columns(columns: dict[str, Column], target: str | None = None) -> bytes:
    """Draw the distribution of each column; the target comes first, so that it is never left out."""
    ordered = sorted(columns.items(), key=lambda entry: entry[0] != target)
    shown = ordered[:MOST_PANELS]
    across = min(4, len(shown))
    rows = math.ceil(len(shown) / across)
    figure = Figure(figsize=(2.7 * across, 1.9 * rows), dpi=130, layout="constrained")
    for index, (name, column) in enumerate(shown):
        axes = figure.add_subplot(rows, across, index + 1)
        missing, beyond = _distribution(axes, column)
        notes = [f"{missing} missing"] * bool(missing) + [f"{beyond} beyond"] * bool(beyond)
        title = shortened(name, 24) + (f"  ({', '.join(notes)})" if notes else "")
        axes.set_title(literal(title), fontsize=7, color=INK, fontweight="bold" if name == target else "normal")
        _plain(axes)
    if len(columns) > len(shown):
        figure.suptitle(f"{len(shown)} of {len(columns)} columns", fontsize=8, color=INK)
    return png(figure)


def _rows(columns: dict[str, Column], target: str | None, index: NDArray[np.int64], names: Sequence[str]) -> bytes:
    """Draw rows of a table as text, one sample a line; the target comes first."""
    shown = sorted(columns.items(), key=lambda entry: entry[0] != target)[:MOST_PANELS]
    cells = [[_cell(column, position) for _, column in shown] for position in index.tolist()]
    heads = [shortened(name, 16) for name, _ in shown]
    if names and target not in columns:
        cells = [[shortened(names[i], 16), *row] for i, row in zip(index.tolist(), cells, strict=True)]
        heads.insert(0, "class")
    figure = Figure(figsize=(1.0 + 1.1 * len(heads), 0.5 + 0.24 * len(cells)), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    table = axes.table(
        [[literal(text) for text in row] for row in cells],
        rowLabels=[str(position) for position in index.tolist()],
        colLabels=[literal(head) for head in heads],
        loc="center",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(7)
    for (row, _), cell in table.get_celld().items():
        cell.set(edgecolor=GRID, facecolor="#f4f6f8" if row == 0 else "white")
        cell.get_text().set_color(INK)
    if len(columns) > len(shown):
        figure.suptitle(f"{len(shown)} of {len(columns)} columns", fontsize=8, color=INK)
    return png(figure)


def _cell(column: Column, position: int) -> str:
    value = np.asarray(column.values)[position]
    if column.categories is not None:
        return "" if value < 0 else shortened(column.categories[int(value)], 16)
    if not np.isfinite(value):
        return ""
    if column.is_date:
        return str(np.datetime64(round(float(value)), "s")).replace("T00:00:00", "")
    return f"{float(value):.6g}"


def _distribution(axes: Any, column: Column) -> tuple[int, int]:
    """Draw a distribution; return (missing values, values outside the axis).

    The axis leaves out the outermost 0.5 % on each side if these values are far away.
    """
    values, categories = np.asarray(column.values), column.categories
    if categories is not None:
        counts = np.bincount(values[values >= 0], minlength=len(categories))
        order = np.argsort(-counts, kind="stable")[:8]
        places = range(len(order))  # not the names themselves: two that are shortened alike would share a bar
        axes.barh(places, counts[order][::-1], color=BLUE)
        axes.set_yticks(places, [literal(shortened(categories[i], 16)) for i in order[::-1]])
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        return int((values < 0).sum()), 0
    present = values[np.isfinite(values)] / (SECONDS_A_DAY if column.is_date else 1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    if not len(present):
        return len(values), 0
    low, high = np.quantile(present, [0.005, 0.995])
    if present.max() - present.min() <= 3 * (high - low) or low == high:
        low, high = present.min(), present.max()
    inside = present[(present >= low) & (present <= high)]
    whole = bool((inside == np.floor(inside)).all()) and high - low <= 2000
    # bins of equal numbers of integers: unequal ones look like a pattern
    width = max(1, math.ceil((high - low + 1) / 30)) if whole else 0
    axes.hist(inside, bins=np.arange(low - 0.5, high + width + 0.5, width) if whole else 30, color=BLUE)
    if column.is_date:  # Matplotlib counts days since 1970
        locator = AutoDateLocator(minticks=2, maxticks=4)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    elif max(abs(low), abs(high)) >= 1e4:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    return len(values) - len(present), len(present) - len(inside)


def _plain(axes: Any) -> None:
    axes.tick_params(labelsize=6, length=2)
    axes.grid(color=GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def shortened(text: str, most: int) -> str:
    """Return the text, cut to `most` characters with an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def _sequences(inputs: SequenceInputs, names: Sequence[str], index: NDArray[np.int64] | None) -> bytes:
    """Draw the chosen sequences, else a few from the classes in turn, on one scale, with up to twelve features each."""
    count, features = len(inputs.offsets) - 1, inputs.values.shape[1]
    chosen = _spread(names, count, 9) if index is None else index
    rows = math.ceil(len(chosen) / 3)
    figure = Figure(figsize=(8.2, 1.8 * rows + 0.3), dpi=130, layout="constrained")
    grid = figure.subplots(rows, min(3, len(chosen)), squeeze=False, sharey=True)
    for axes in grid.flat[len(chosen) :]:
        axes.set_visible(False)
    for axes, position in zip(grid.flat, chosen, strict=False):
        start, end = int(inputs.offsets[position]), int(inputs.offsets[position + 1])
        steps = np.arange(0, end - start, max(1, (end - start) // 2000))
        drawn = np.asarray(inputs.values[start:end])[steps, :MOST_PANELS]
        for feature in range(drawn.shape[1]):
            axes.plot(steps, drawn[:, feature], linewidth=0.9, color=COLOURS[feature], label=f"feature {feature}")
        words = [] if index is None else [f"{position}"]
        words += [literal(shortened(names[position], 24))] if names else []
        axes.set_title(", ".join([*words, f"{end - start} steps"]), fontsize=7, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        _plain(axes)
    if features > 1:
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", fontsize=6, frameon=False, labelcolor=INK)
    if features > MOST_PANELS:
        figure.suptitle(f"{MOST_PANELS} of {features} features", fontsize=8, color=INK)
    return png(figure)


def png(figure: Figure) -> bytes:
    """Return the figure as PNG."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
