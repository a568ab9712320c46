"""The table of injected faults, and the scene that each of them plays on: a real supervisor, a real training process."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from service.context import Context as ServiceContext
from service.jobs import service as jobs
from service.jobs.states import ENDED
from service.jobs.tables import Attempt, Job
from tests.support.transactions import transact
from tests.support.worker_context import Place
from worker.control import ControlReceiver
from worker.supervisor import claim_and_supervise

MIB = 2**20


@dataclass
class Scene:
    """One fault's job. What is patched holds in the training process too: it is forked from here."""

    place: Place
    dataset: str
    patch: pytest.MonkeyPatch
    folder: Path
    spec: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    job: str = ""

    def submit(self, **changes: Any) -> str:
        """A job of three short epochs and one attempt, unless changed; returns its id, which `job` holds too."""
        base = {"train": {"epochs": 3, "seed": 1, "threads": 1}, "resources": {"max_attempts": 1}}
        self.job = self.place.submit(**{"dataset": self.dataset, **base, **self.spec, **changes})
        return self.job

    def run(self) -> None:
        """One attempt, with this scene's settings."""
        settings = replace(self.place.context.settings, **self.settings)
        assert claim_and_supervise(replace(self.place.context, settings=settings), "train")

    def row(self) -> Job:
        """The job as it is now."""
        return self.place.job(self.job)

    def attempt(self) -> Attempt:
        """Its newest attempt."""
        return self.place.attempts(self.job)[-1]

    def service(self) -> ServiceContext:
        """The client's side of it."""
        return self.place.service

    def at_step(self, step: int, act: Callable[[], object]) -> None:
        """In the training process: do that once, after so many steps."""
        command, calls = ControlReceiver.command, 0

        def asks(control: ControlReceiver) -> Any:
            nonlocal calls
            calls += 1
            if calls == step:
                act()
            return command(control)

        self.patch.setattr(ControlReceiver, "command", asks)

    def prepared(self) -> Path:
        """The dataset's prepared form, to be damaged; it is whole again for the next fault."""
        folder = self.place.context.storage.root / "prepared" / self.dataset / "1"
        kept = self.folder / "prepared"
        if not kept.exists():
            shutil.copytree(folder, kept)
        return folder

    def close(self) -> None:
        """As it was before."""
        self.patch.undo()
        kept = self.folder / "prepared"
        if kept.exists():
            shutil.rmtree(self.prepared(), ignore_errors=True)
            shutil.copytree(kept, self.prepared())
        if self.job and self.row().state not in ENDED:
            transact(self.place.service, jobs.cancel, self.place.who, self.job)


@dataclass(frozen=True)
class Fault:
    """`act` injects it and yields; the attempt is run; what `act` then asserts beyond the table holds."""

    act: Callable[[Scene], Iterator[None]]
    code: str | None
    """The code that the job ends with; None for what is no failure."""
    named: str
    evidence: tuple[str, ...]
    state: str


FAULTS: dict[str, Fault] = {}
Act = Callable[[Scene], Iterator[None]]


def fault(code: str | None, named: str = "", *evidence: str, state: str = "failed") -> Callable[[Act], Act]:
    """Enter a fault in the table: `named` is in its message, `evidence` are keys that are there and not empty."""

    def enter(act: Act) -> Act:
        add(act.__name__.replace("_", " "), act, code, named, *evidence, state=state)
        return act

    return enter


def add(name: str, act: Act, code: str | None, named: str = "", *evidence: str, state: str = "failed") -> None:
    """Enter a fault under a name of its own."""
    assert name not in FAULTS
    FAULTS[name] = Fault(act, code, named, evidence, state)
