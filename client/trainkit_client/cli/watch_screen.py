"""What `jobs watch` draws in a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trainkit_client.cli.command import Session
from trainkit_client.cli.curves import character, draw
from trainkit_client.cli.help import uses_color
from trainkit_client.cli.outcome import ending, monitored
from trainkit_client.cli.output import STYLES, duration, number, printable
from trainkit_client.errors import TrainkitError

if TYPE_CHECKING:
    from trainkit_client import Job

CURVE_ROWS = 5
CURVE_POINTS = 160
"""Of a series at most: more than a terminal has columns of dots."""
REDRAWS_PER_SECOND = 2
COLORS = ("blue", "yellow")
"""Of the training and of the validation part."""
STATE_COLORS = {"32": "green", "36": "cyan", "31": "red", "33": "yellow", "2": "dim"}
TRAINING = frozenset({"running", "stopping", "pausing"})


class Screen:
    """The newest state of a job, as rich draws it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.console = Console(highlight=False, no_color=not uses_color() or None)
        self.job: Job | None = None
        self.read_at = 0.0
        self.series: dict[str, list[tuple[float, float]]] = {}
        self.decisions: dict[str, dict[str, Any]] = {}
        self.event: dict[str, Any] | None = None
        self.after = {"decisions": 0, "events": 0}

    def live(self) -> Live:
        """Return what redraws this screen until it is left."""
        return Live(
            console=self.console, get_renderable=self.render, refresh_per_second=REDRAWS_PER_SECOND, transient=False
        )

    def update(self, job: Job) -> None:
        """Take a new state of the job, and read its curves and decisions."""
        self.job, self.read_at = job, time.monotonic()
        try:
            names = f"train_loss,val_loss,{monitored(job)},{monitored(job).replace('val_', 'train_', 1)}"
            found = self.session.get(f"/v1/jobs/{job.id}/metrics/series", names=names, max_points=CURVE_POINTS)
            self.series = {name: points(line) for name, line in found["series"].items()}
            for decision in self._new("decisions", job.id):
                self.decisions[decision["rule"]["kind"]] = decision
            for event in self._new("events", job.id):
                self.event = event
        except TrainkitError:
            return  # a restart of the service: the next change brings them

    def _new(self, kind: str, identity: str) -> list[dict[str, Any]]:
        page = self.session.get(f"/v1/jobs/{identity}/{kind}", after=self.after[kind], limit=1000)
        self.after[kind] = page["next"] or self.after[kind]
        rows: list[dict[str, Any]] = page["data"]
        return rows

    def render(self) -> Group:
        """Draw it."""
        job = self.job
        if job is None:
            return Group(Text("..."))
        parts: list[Any] = [self._head(job)]
        if job.progress is not None and job.progress.epochs:
            parts.append(self._progress(job))
        if any(len(line) > 1 for line in self.series.values()):
            parts += [Text(""), self._curves(job)]
        if job.has_ended:
            parts += [Text(""), *(Text(printable(text), overflow="fold") for text in ending(job))]
        else:
            parts += self._decisions()
        return Group(*parts)

    def _head(self, job: Job) -> Text:
        color = STATE_COLORS.get(STYLES.get(job.state, ""), "")
        text = Text.assemble(
            (printable(job.name or job.id), "bold"),
            "  ",
            (job.state, color),
            "  ",
            (job.id, "dim"),
            overflow="ellipsis",
        )
        text.no_wrap = True
        reason = (self.event or {}).get("reason")
        if job.state in ("queued", "validating", "paused") and reason:
            text.append(f"  {printable(reason)}", "dim")
        return text

    def _progress(self, job: Job) -> Table:
        progress = job.progress
        assert progress is not None
        eta = progress.eta_seconds
        if eta is not None:
            eta = max(0.0, eta - (time.monotonic() - self.read_at))
        grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True, justify="right")
        right = f"{progress.percent or 0:.0f}%"
        if job.state in TRAINING and eta is not None:
            right += f"  {duration(eta)} left"
        if self.console.width >= 100 and progress.samples_per_second:
            right += f"  {progress.samples_per_second:,.0f} samples/s"
        bar = ProgressBar(total=100, completed=progress.percent or 0, complete_style="cyan", finished_style="green")
        grid.add_row(f"epoch {progress.epoch}/{progress.epochs}", bar, right)
        return grid

    def _curves(self, job: Job) -> Table:
        """Draw the losses on the left, and the metric that is monitored on the right."""
        metric = monitored(job)
        charts = [("loss", ["train_loss", "val_loss"])]
        if metric != "val_loss":
            charts.append((metric.removeprefix("val_"), [metric.replace("val_", "train_", 1), metric]))
        charts = [chart for chart in charts if any(len(self.series.get(name, ())) > 1 for name in chart[1])]
        grid = Table.grid(padding=(0, 3, 0, 0))
        width = min(60, self.console.width // max(1, len(charts)) - 3)
        grid.add_row(*(self._chart(job, title, names, width) for title, names in charts))
        return grid

    def _chart(self, job: Job, title: str, names: list[str], width: int) -> Text:
        lines = [self.series.get(name, []) for name in names]
        low, high = bounds(lines, zoom=title != "loss")
        labels = [f"{high:.3g}", f"{low:.3g}"]
        margin = max(len(label) for label in labels) + 1
        end = max(line[-1][0] for line in lines if line)
        rows = draw(lines, max(8, width - margin), CURVE_ROWS, low, high, end)
        text = Text(no_wrap=True)
        text.append(title, "bold")
        for name, line, color in zip(names, lines, COLORS, strict=True):
            if line:
                text.append(f"  {'train' if name.startswith('train') else 'val'} {number(line[-1][1])}", color)
        best = job.metric_values.best.get(names[-1])
        if best is not None and len(text.plain) + len(f"  best {number(best)}") <= width:
            text.append(f"  best {number(best)}", "dim")
        for place, row in enumerate(rows):
            label = labels[0] if place == 0 else labels[1] if place == len(rows) - 1 else ""
            text.append(f"\n{label.rjust(margin - 1)} ", "dim")
            for cell in row:
                text.append(character(cell), COLORS[cell.series] if cell.series is not None else "")
        return text

    def _decisions(self) -> list[Text]:
        shown = []
        for kind, decision in self.decisions.items():
            reason = printable(decision.get("reason") or decision["action"])
            line = Text(f"{kind}: {reason}")
            line.stylize("dim" if decision["action"] == "continue" else "yellow")
            shown.append(line)
        if not shown:
            return []
        last = next(iter(self.decisions.values()))
        return [Text(""), Text(f"Early stopping, epoch {last['epoch']}", "bold"), *shown]


def points(line: dict[str, list[Any]]) -> list[tuple[float, float]]:
    """Return the finite points of a series by step."""
    pairs = zip(line["step"], line["value"], strict=True)
    return [(float(step), float(value)) for step, value in pairs if value is not None]


def bounds(lines: list[list[tuple[float, float]]], *, zoom: bool) -> tuple[float, float]:
    """Return the range of a chart. Of a loss the first tenth may lie above it, so that the rest can be seen."""
    values = sorted(y for line in lines for _, y in line)
    if zoom:
        return values[len(values) // 10], values[-1]
    return values[0], values[min(len(values) - 1, int(0.95 * len(values)))]
