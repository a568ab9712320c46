"""The event stream of a run: JSON-able dicts, in the order of `docs/explanation/architecture.md`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

PROGRESS_SECONDS = 1.0
Rows = Mapping[str, Mapping[str, float]]
"""`{split: {name: value}}`."""


class Events:
    """Sends events to `on_event` and keeps the metric rows for `FitResult.history`."""

    def __init__(self, on_event: Callable[[dict[str, Any]], object] | None) -> None:
        self._send = on_event
        self.history: list[dict[str, Any]] = []
        self._progress_due = 0.0

    def emit(self, kind: str, **fields: Any) -> None:
        """One event."""
        if self._send is not None:
            self._send({"type": kind, **fields})

    def log(self, message: str, level: str = "info") -> None:
        """A line for people."""
        self.emit("log", level=level, message=message)

    def phase(self, name: str) -> None:
        """What the run does now."""
        self.emit("phase", phase=name)

    def rows(self, step: int, epoch: int, values: Rows, *, keep: bool = True, beside: Rows | None = None) -> None:
        """Metric rows, `{split: {name: value}}`, measured after `step` steps in `epoch`; the history has not `beside`."""
        flat, more = _flat(values), _flat(beside or {})
        self.emit("metrics", step=step, epoch=epoch, at=time.time(), rows=flat + more)
        if keep:
            self.history += [
                {"step": step, "epoch": epoch, "split": split, "name": name, "value": value}
                for split, name, value in flat
            ]

    def progress(
        self, *, epoch: int, epochs: int, step: int, steps: int, seconds: float, done: int, rate: float, force: bool
    ) -> None:
        """At most one a second, unless forced. `done` steps took `seconds` in this attempt."""
        now = time.monotonic()
        if not force and now < self._progress_due:
            return
        self._progress_due = now + PROGRESS_SECONDS
        eta = seconds / done * (steps - step) if done else None
        self.emit(
            "progress",
            epoch=epoch,
            epochs=epochs,
            step=step,
            steps=steps,
            percent=round(100.0 * step / max(steps, 1), 2),
            eta_seconds=None if eta is None else round(eta, 3),
            samples_per_second=round(rate, 1),
        )


def _flat(values: Rows) -> list[list[Any]]:
    return [[split, name, value] for split, metrics in values.items() for name, value in metrics.items()]
