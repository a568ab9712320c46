"""What is asked for of each trial of a batch, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from trainkit.fit.control import Control, Wish
from trainkit.fit.events import Events
from trainkit.fit.failure import error_of
from trainkit.fit.run import FitResult, result_of
from trainkit.fit.run_state import Job, TrainingOutcome
from trainkit.spec import JobSpec

OnEvent = Callable[[int, dict[str, Any]], object]
"""(number of the trial, event)"""


@dataclass
class Asked:
    """One of the trials, from what was asked for to what came of it."""

    number: int
    asked: JobSpec | Mapping[str, Any]
    send: Callable[[dict[str, Any]], object]
    control: Control | None
    workdir: Path | None
    events: Events = field(init=False)
    spec: JobSpec | None = None
    job: Job | None = None
    chosen: dict[str, Any] = field(default_factory=dict)
    outcome: FitResult | Exception | None = None

    def __post_init__(self) -> None:
        self.events = Events(self.send)

    def failed(self, error: Exception) -> None:
        """Told as an event, and kept as what came of it."""
        self.events.emit("failed", error=error_of(error, self.asked))
        self.outcome = error

    def ended(self, how: TrainingOutcome | Exception) -> None:
        """Its training is over."""
        assert self.job is not None
        if isinstance(how, Exception):
            self.failed(how)
            return
        try:
            self.outcome = result_of(self.job, how, self.chosen)
        except Exception as error:
            self.failed(error)


class Shared:
    """One control for all trials: what it once wished holds for each of them."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._wish: Wish | dict[str, Any] | None = None

    def wish(self) -> Wish | dict[str, Any] | None:
        """The wish, from the moment that it is there."""
        if self._wish is None:
            self._wish = self._control.wish()
        return self._wish


def ask(
    specs: Sequence[JobSpec | Mapping[str, Any]],
    on_event: OnEvent | None,
    control: Control | Sequence[Control | None] | None,
    workdir: str | Path | None,
) -> list[Asked]:
    """The trials in order; `control` is one for all or one each, files go into `workdir`/trial-0 and so on."""
    if control is None or isinstance(control, Sequence):
        controls = list(control or [None] * len(specs))
    else:
        controls = [Shared(control)] * len(specs)
    return [
        Asked(
            number,
            spec,
            (lambda event: None) if on_event is None else partial(on_event, number),
            own,
            None if workdir is None else Path(workdir) / f"trial-{number}",
        )
        for number, (spec, own) in enumerate(zip(specs, controls, strict=True))
    ]
