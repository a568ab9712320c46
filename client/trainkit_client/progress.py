"""Progress for people: a bar in terminals and notebooks, and the curves of a job in a notebook."""

from __future__ import annotations

import html
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import ClassVar

from trainkit_client.types import JobFields


@contextmanager
def upload_progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of the bytes that are stored; the function takes those and all bytes."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task(f"Uploading {escaped(name)}", total=None)

        def report(stored: int, total: int) -> None:
            bar.update(task, completed=stored, total=total)

        yield report


Report = Callable[[JobFields], None]


@contextmanager
def job_progress() -> Iterator[Report]:
    """Show a job: in a notebook a bar and the curves of its losses, else a bar; the function takes the job as it is now."""
    notebook = _notebook_display()
    if notebook is not None:
        curves = LiveCurves()
        shown = notebook(curves.html(None))

        def draw(job: JobFields) -> None:
            curves.add(job)
            shown(curves.html(job))

        yield draw
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("job", total=100, text="")

        def report(job: JobFields) -> None:
            percent = job.progress.percent if job.progress is not None else None
            bar.update(
                task, description=escaped(job.name or job.id), completed=percent or 0, text=escaped(summary(job))
            )

        yield report


def escaped(text: str) -> str:
    """Return text that rich shows as it is."""
    from rich.markup import escape

    return escape("".join(character for character in text if character.isprintable()))


def summary(job: JobFields) -> str:
    """Return the state of a job, the epoch, and the newest values of its validation part, in one line."""
    parts = [job.state]
    if job.progress is not None and job.progress.epochs:
        parts.append(f"epoch {job.progress.epoch}/{job.progress.epochs}")
    last = job.metric_values.last
    parts += [
        f"{name} {value:.4g}"
        for name in ("val_loss", "val_accuracy", "val_r2")
        if (value := last.get(name)) is not None
    ]
    if job.error is not None:
        parts.append(job.error.message)
    return ", ".join(parts)


class LiveCurves:
    """The losses of a job as they were seen, drawn as SVG."""

    COLOURS: ClassVar = {"train_loss": "#4477aa", "val_loss": "#cc6677"}
    WIDTH, HEIGHT, MARGIN = 480, 160, 8

    def __init__(self) -> None:
        self.points: dict[str, list[tuple[float, float]]] = {name: [] for name in self.COLOURS}

    def add(self, job: JobFields) -> None:
        """Take the newest values of a job."""
        if job.progress is None:
            return
        for name, points in self.points.items():
            value = job.metric_values.last.get(name)
            if value is not None and (not points or points[-1][0] < job.progress.epoch):
                points.append((float(job.progress.epoch), value))

    def html(self, job: JobFields | None) -> str:
        """Return a bar, a line of text and the curves."""
        if job is None:
            return "<div>waiting for the job</div>"
        percent = (job.progress.percent if job.progress is not None else None) or 0.0
        head = f"<b>{html.escape(job.name or job.id)}</b> {html.escape(summary(job))}"
        return (
            f'<div>{head}<br><progress max="100" value="{percent:.1f}" style="width:100%"></progress>{self.svg()}</div>'
        )

    def svg(self) -> str:
        """Return the curves; nothing before there are two points of one."""
        every = [point for points in self.points.values() for point in points]
        if max(map(len, self.points.values())) < 2:
            return ""
        (left, right), (low, high) = ((min(axis), max(axis)) for axis in zip(*every, strict=True))
        across = (self.WIDTH - 2 * self.MARGIN) / ((right - left) or 1)
        up = (self.HEIGHT - 2 * self.MARGIN) / ((high - low) or 1)
        parts = []
        for name, points in self.points.items():
            places = [
                f"{self.MARGIN + (x - left) * across:.1f},{self.HEIGHT - self.MARGIN - (y - low) * up:.1f}"
                for x, y in points
            ]
            colour = self.COLOURS[name]
            parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{" ".join(places)}"/>')
        texts = [
            f'<text x="{self.WIDTH - 90}" y="{16 + 14 * row}" font-size="12" fill="{colour}">{name}</text>'
            for row, (name, colour) in enumerate(self.COLOURS.items())
        ]
        size = f'width="{self.WIDTH}" height="{self.HEIGHT}" viewBox="0 0 {self.WIDTH} {self.HEIGHT}"'
        return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(parts + texts)}</svg>'


def _notebook_display() -> Callable[[str], Callable[[str], None]] | None:
    """Return what shows HTML and returns its updater, in a notebook; None elsewhere."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    if shell is None or type(shell).__name__ != "ZMQInteractiveShell":
        return None
    display, document = (getattr(import_module("IPython.display"), name) for name in ("display", "HTML"))

    def show(text: str) -> Callable[[str], None]:
        handle = display(document(text), display_id=True)
        return lambda newer: handle.update(document(newer))

    return show
