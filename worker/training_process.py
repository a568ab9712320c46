"""The training process: trainkit alone. Events go to the spool, wishes come by the pipe; no database, no secrets."""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from worker.control import Control
from worker.crash_channel import LastWords
from worker.spool import SpoolWriter


@dataclass(frozen=True, slots=True)
class Task:
    """All that a training process is told."""

    spec: dict[str, Any]
    dataset: Path
    workdir: Path
    spool: Path
    runtime: dict[str, Any] | None = None
    resume_from: Path | None = None
    branch: bool = False
    """Whether that checkpoint is another job's."""
    target_dataset: Path | None = None
    source: Any = None


def run(task: Task, control: Control, last: LastWords) -> None:
    """Train, and say how it ended. Raises what went wrong, after a `failed` event or, without a disk, `last` words."""
    from trainkit.fit.failure import error_of

    be_the_first_to_go()
    faulthandler.enable()  # a crash of a native library leaves in the log where it was
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # the supervisor asks where we are before it gives us up
    try:
        _train(task, control, last)
    except BaseException as error:
        last.say(error_of(error))
        raise


def _train(task: Task, control: Control, last: LastWords) -> None:
    from trainkit.fit.failure import error_of

    spool = SpoolWriter(task.spool)
    failed = False

    def on_event(event: dict[str, Any]) -> None:
        nonlocal failed
        control.beat()
        if event["type"] == "failed":
            failed = True
            last.say(event["error"])
        if line := log_line(event):
            print(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {line}", flush=True)
        if event["type"] != "log":
            spool.write(event)

    try:
        spool.write({"type": "ended", "outcome": _fit(task, control, on_event)})
    except BaseException as error:
        if not failed:
            spool.write({"type": "failed", "error": error_of(error)})
        raise
    finally:
        spool.close()


def _fit(task: Task, control: Control, on_event: Callable[[dict[str, Any]], None]) -> str:
    """Run the job's training and return its outcome."""
    from trainkit.data import Dataset
    from trainkit.fit import fit

    return fit(
        task.spec,
        Dataset.load(task.dataset),
        on_event=on_event,
        control=control,
        workdir=task.workdir,
        resume_from=task.resume_from,
        branch=task.branch,
        target_data=None if task.target_dataset is None else Dataset.load(task.target_dataset),
        source=task.source,
        runtime=usable(task.runtime, on_event),
    ).outcome


def log_line(event: dict[str, Any]) -> str | None:
    """The event as a line of the attempt's log; None for what the metric log tells better."""
    kind = event["type"]
    if kind == "log":
        return f"{event['level']} {event['message']}"
    if kind == "runtime":
        return f"info {event['parameters']} parameters, {event['precision']} on {event['device']}, {event['threads']} threads"
    if kind == "resumed":
        exact = "to the last bit" if event["exact"] else f"though not to the last bit: {event['reason']}"
        return f"info going on after step {event['step']}, {exact}"
    if kind == "phase":
        return None if event["phase"].startswith("epoch ") else f"info {event['phase']}"
    if kind == "best":
        return f"info epoch {event['epoch']} is the best so far: {event['metric']} {event['value']:.6g}"
    if kind == "decision":
        return None if event["action"] == "continue" else f"info stopping: {event['reason']}"
    if kind == "checkpoint":
        return f"info checkpoint after step {event['step']} (epoch {event['epoch']}, {event['bytes']} bytes)"
    if kind == "finished":
        return f"info finished: {event['stop_reason']}; best epoch {event['best_epoch']}, test {event['test']}"
    if kind == "failed":
        return f"error {event['error']['code']}: {event['error']['message']}"
    return None


def usable(runtime: dict[str, Any] | None, on_event: Callable[[dict[str, Any]], None]) -> dict[str, Any] | None:
    """The earlier attempt's choices, unless its GPU is not on this machine: then they are made anew, and said so."""
    import torch

    if runtime is None or runtime["device"] == "cpu":
        return runtime
    kind = torch.device(runtime["device"]).type
    there = torch.cuda.is_available() if kind == "cuda" else torch.backends.mps.is_available()
    if there:
        return runtime
    message = f"the earlier attempt computed on {runtime['device']}, which this worker has not: results may differ"
    on_event({"type": "log", "level": "warning", "message": message})
    return None


def be_the_first_to_go() -> None:
    """When memory runs out the kernel shall take the training process, not the worker, the broker or the database."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("500")
