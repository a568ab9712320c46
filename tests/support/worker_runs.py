"""Run attempts in a test's own process, act on their training process meanwhile, and read what they stored."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from service.jobs.tables import Job
from service.logs import service as logs
from service.logs.service import LogFilter, LoggedLine
from service.simulation.schemas import SimulationOut
from service.simulation.service import simulate
from tests.support.logged_rows import logged_rows
from tests.support.worker_context import Place
from trainkit.spec.early_stop import parse_rules
from worker.supervisor import claim_and_supervise

LONG = {"epochs": 100_000, "checkpoint_seconds": 0, "seed": 1}


def run_one(place: Place) -> bool:
    """Run one attempt at the next queued job; False when none waits."""
    return claim_and_supervise(place.context, "train")


def epochs_seen(place: Place, job: str) -> list[tuple[int, float]]:
    """(epoch, validation loss) of every evaluation that counts; the log must have no gaps."""
    with place.context.sessions() as session:
        rows = logged_rows(session, job)
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
    return [
        (r.row.epoch, r.row.value) for r in rows if (r.row.split, r.row.name) == ("val", "loss") and not r.superseded
    ]


def training_process(place: Place) -> psutil.Process:
    """Find the training process: this process's child that has a spool open."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in psutil.Process().children():
            try:
                if any(file.path.endswith("/spool") for file in child.open_files()):
                    return child
            except psutil.Error:
                continue
        time.sleep(0.01)
    raise AssertionError("no training process")


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Run `act` in a thread while the supervisor runs in this one."""
    failures: list[BaseException] = []

    def target() -> None:
        try:
            act()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    yield
    thread.join()
    if failures:
        raise failures[0]


def wait_for_epochs(place: Place, job: str, count: int) -> None:
    """Wait until the job reports that epoch."""
    deadline = time.monotonic() + 60
    while (place.job(job).progress or {}).get("epoch", 0) < count:
        assert time.monotonic() < deadline, place.job(job).error
        time.sleep(0.02)


def lines_of(place: Place, job: str) -> list[LoggedLine]:
    """The lines of the job's log; their seq must have no gaps."""
    with place.context.sessions() as session:
        lines = logs.read(session, job, 0, LogFilter(), 0, 100_000).lines
    assert [line.seq for line in lines] == list(range(1, len(lines) + 1))
    return lines


def texts(place: Place, job: str) -> list[str]:
    """The texts of the job's log."""
    return [line.line.text for line in lines_of(place, job)]


def replayed(place: Place, job: str, rules: list[dict[str, Any]] | None = None) -> SimulationOut:
    """Replay the job's stopping rules, or other ones, on its stored evaluations."""
    with place.context.sessions() as session:
        given = None if rules is None else parse_rules({"rules": rules})
        return simulate(session, session.get_one(Job, job), given, 0, 1000)
