"""Colours, axes, PNG and SVG output that the plots share. Figure objects only, no pyplot state."""

from __future__ import annotations

import io

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trainkit.spec.text import one_line

TRAIN, VALIDATION, TEST, INK, GRID = "#3b6fb6", "#d1603d", "#4f8a5b", "#222831", "#e3e6ea"


def literal(text: str) -> str:
    """Return a text that Matplotlib draws as it stands, on one line: dollar signs would begin a formula."""
    return one_line(text).replace("$", r"\$")


def style_epoch_axes(axes: Axes, xlabel: str, title: str) -> None:
    """Style axes whose x is the epoch, with a title."""
    axes.set_xlabel(xlabel, fontsize=8, color=INK)
    axes.set_title(title, fontsize=9, color=INK, loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(left=max(0.5, axes.get_xlim()[0]))  # there is no epoch 0
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7, length=0, colors=INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRID)


def render_png(figure: Figure) -> bytes:
    """Return the figure as PNG: the same numbers give the same bytes."""
    buffer = io.BytesIO()
    # without the default metadata, which holds the version of matplotlib
    FigureCanvasAgg(figure).print_figure(
        buffer, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 4}
    )
    return buffer.getvalue()


def render_svg(figure: Figure) -> bytes:
    """Return the figure as SVG without date, script or fonts: the same numbers give the same bytes."""
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "trainkit", "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_figure(
            buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    return buffer.getvalue()
