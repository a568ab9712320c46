"""The training process of one attempt: the supervisor's handle on it, and the code that runs in it.

It runs trainkit alone, without database and secrets. Commands reach it by a pipe, its events leave by the spool, and a
counter and one error are shared through memory.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainkit.diagnose.attainable import Attainable
from trainkit.spec import load_resolved
from worker import investigation
from worker.confinement import Confinement
from worker.control import Command, ControlReceiver, ControlSender, control_pipe
from worker.crash_channel import CrashChannel
from worker.processes import Exit, ForkedProcess, fork
from worker.spool import SpoolWriter
from worker.watchdog import Watchdog


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """The inputs of a training process."""

    spec: dict[str, Any]
    """The resolved spec, with this worker's device."""
    dataset: Path
    workdir: Path
    spool: Path
    runtime: dict[str, Any] | None = None
    resume_from: Path | None = None
    branch: bool = False
    """Whether `resume_from` is another job's checkpoint."""
    target_dataset: Path | None = None
    source: Any = None
    """A folder or file of weights, a list of them, or None."""
    attainable: dict[str, Any] | None = None
    """What references reach on the dataset and split, where it was measured before."""
    investigated: Path | None = None
    """Of an investigation: the file with the record of the job that it investigates, in `workdir`."""

    @property
    def inputs(self) -> list[Path]:
        """All files and folders that it reads."""
        sources = self.source if isinstance(self.source, list) else [self.source]
        given = [self.dataset, self.target_dataset, self.resume_from, *sources]
        return [Path(path) for path in given if path is not None]


class TrainingProcess:
    """The supervisor's handle: start the process, send it commands, check it, kill it."""

    def __init__(self, log_file: Path, memory_limit: int, wedged_seconds: float) -> None:
        self.watchdog = Watchdog(log_file, memory_limit, wedged_seconds)
        self.crash_channel = CrashChannel()
        self.child: ForkedProcess | None = None
        self._log_file = log_file
        self._control: ControlSender | None = None

    @property
    def started(self) -> bool:
        return self.child is not None

    @property
    def last_command(self) -> Command | None:
        """The command in force."""
        return self._control.last if self._control is not None else None

    def start(self, task: TrainingTask, confinement: Confinement | None = None) -> int:
        """Fork the process and return its pid."""
        read_end, write_end = control_pipe()
        self.watchdog.reset()
        self.child = fork(
            lambda: run(task, ControlReceiver(read_end, self.watchdog.pulse.beat), self.crash_channel),
            log=self._log_file,
            keep=[read_end],
            threads=int((task.runtime or {}).get("threads", 1)),
            confinement=confinement,
        )
        os.close(read_end)
        self._control = ControlSender(write_end)
        return self.child.pid

    def poll(self) -> Exit | None:
        """Return how it ended, or None while it runs."""
        assert self.child is not None
        return self.child.poll()

    def wait(self, seconds: float) -> None:
        """Sleep, at most until it ends."""
        assert self.child is not None
        self.child.sleep(seconds)

    def check(self) -> None:
        """Kill it when the watchdog finds it wedged or over its memory limit."""
        assert self.child is not None
        if self.watchdog.check(self.child) is not None:
            self.kill()

    def send(self, command: Command) -> None:
        """Send a command to the process, if it was started."""
        if self._control is not None:
            self._control.send(command)

    def kill(self) -> None:
        """Send SIGKILL. Only signals, because the lease's timer calls it too; `poll` reaps."""
        if self.child is not None:
            self.child.signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill and reap the process and close its pipe."""
        if self.child is not None:
            self.child.kill()
        if self._control is not None:
            self._control.close()


def run(task: TrainingTask, control: ControlReceiver, crash_channel: CrashChannel) -> None:
    """Train and report the outcome: the body of the process.

    Raises what went wrong, after a `failed` event or, where the disk takes none, an error in the crash channel.
    """
    from trainkit.fit.failure import error_of

    faulthandler.enable()  # a crash of a native library leaves its stack in the log
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # sent by the watchdog before it kills the process
    try:
        _train(task, control, crash_channel)
    except BaseException as error:
        crash_channel.write(error_of(error))
        raise


def _train(task: TrainingTask, control: ControlReceiver, crash_channel: CrashChannel) -> None:
    from trainkit.fit.failure import error_of

    spool = SpoolWriter(task.spool)
    failed = False

    def on_event(event: dict[str, Any]) -> None:
        nonlocal failed
        control.beat()
        if event["type"] == "failed":
            failed = True
            crash_channel.write(event["error"])
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


def _fit(task: TrainingTask, control: ControlReceiver, on_event: Callable[[dict[str, Any]], None]) -> str:
    """Run the job's training, or its investigation, and return the outcome."""
    from trainkit.data import Dataset
    from trainkit.fit import fit
    from trainkit.fit.attainable import attainable_event

    dataset = Dataset.load(task.dataset)
    if task.investigated is not None:
        return investigation.run(
            task.investigated,
            task.spec["investigation"],
            (task.spec.get("resources") or {}).get("max_seconds"),
            dataset,
            control=control,
            on_event=on_event,
            workdir=task.workdir,
            resume_from=task.resume_from,
            target_data=None if task.target_dataset is None else Dataset.load(task.target_dataset),
            source=task.source,
            runtime=usable_runtime(task.runtime, on_event),
        )
    resolved, begun = load_resolved(task.spec, dataset.facts), time.monotonic()
    result = fit(
        resolved,
        dataset,
        on_event=on_event,
        control=control,
        workdir=task.workdir,
        resume_from=task.resume_from,
        branch=task.branch,
        target_data=None if task.target_dataset is None else Dataset.load(task.target_dataset),
        source=task.source,
        runtime=usable_runtime(task.runtime, on_event),
    )
    trained = time.monotonic() - begun
    if result.outcome == "finished" and not is_measured(task.attainable, trained):
        # The model is stored and its results are shipped: nothing that happens now can take them away.
        on_event({"type": "phase", "phase": "fitting references"})
        threads = result.runtime.get("threads", 1)
        found = attainable_event(resolved, dataset, trained=trained, threads=threads, control=control)
        if found is not None:
            on_event(found)
    return result.outcome


def is_measured(attainable: dict[str, Any] | None, trained: float) -> bool:
    """Whether what was measured before is as good as what a run of so many seconds would measure."""
    from trainkit.fit.attainable import reference_seconds

    return attainable is not None and not Attainable.from_dict(attainable).worth_repeating(reference_seconds(trained))


def log_line(event: dict[str, Any]) -> str | None:
    """Format an event as a line of the attempt's log; None for those that the metric log holds."""
    kind = event["type"]
    if kind == "log":
        return f"{event['level']} {event['message']}"
    if kind == "runtime":
        return f"info {event['parameters']} parameters, {event['precision']} on {event['device']}, {event['threads']} threads"
    if kind == "resumed":
        exact = "bit-exact" if event["exact"] else f"not bit-exact: {event['reason']}"
        return f"info resumed after step {event['step']}, {exact}"
    if kind == "phase":
        return None if event["phase"].startswith("epoch ") else f"info {event['phase']}"
    if kind == "best":
        return f"info epoch {event['epoch']} is the best so far: {event['metric']} {event['value']:.6g}"
    if kind == "decision":
        return None if event["action"] == "continue" else f"info stopping: {event['reason']}"
    if kind == "checkpoint":
        return f"info checkpoint after step {event['step']} (epoch {event['epoch']}, {event['bytes']} bytes)"
    if kind == "attainable":
        value = f"{event['metric']} {event['value']:.4g} ({event['low']:.4g} to {event['high']:.4g})"
        return f"info attainable on the validation part: {value}, by {event['reference']}"
    if kind == "variant":
        return f"info {variant_line(event)}"
    if kind == "finished" and event.get("verdict"):
        return f"info finished: {event['stop_reason']}; {event['verdict']}"
    if kind == "finished":
        return f"info finished: {event['stop_reason']}; best epoch {event['best_epoch']}, test {event['test']}"
    if kind == "failed":
        return f"error {event['error']['code']}: {event['error']['message']}"
    return None


def variant_line(event: dict[str, Any]) -> str:
    """Format the state of an investigation's variant: its patch when it begins, its metrics when it has ended."""
    begun = f"variant {event['number']}, {event['name']}: {event['state']}"
    if event["state"] == "running":
        return f"{begun}, with {json.dumps(event.get('patch') or {})[:500]}"
    result = event.get("result") or {}
    if error := result.get("error"):
        return f"{begun}: {error.get('message')}"
    return f"{begun}, {json.dumps(result.get('metrics') or {})[:500]}"


def usable_runtime(runtime: dict[str, Any] | None, on_event: Callable[[dict[str, Any]], None]) -> dict[str, Any] | None:
    """Return the runtime of the earlier attempt; None, with a warning, when this machine does not have its device."""
    import torch

    if runtime is None or runtime["device"] == "cpu":
        return runtime
    kind = torch.device(runtime["device"]).type
    available = torch.cuda.is_available() if kind == "cuda" else torch.backends.mps.is_available()
    if available:
        return runtime
    message = (
        f"the earlier attempt computed on {runtime['device']}, which this worker does not have: results may differ"
    )
    on_event({"type": "log", "level": "warning", "message": message})
    return None
