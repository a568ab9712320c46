"""`fit_batch`: from K specs and a dataset to K trained models, as one batched model where that is possible and faster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from trainkit.data import Dataset
from trainkit.fit.batched.calibration import Calibration, calibrate
from trainkit.fit.batched.eligibility import Reason, eligible
from trainkit.fit.batched.parameter_stack import same_shape
from trainkit.fit.batched.runner import BatchedRun, BatchedRunner
from trainkit.fit.control import Control, SharedControl
from trainkit.fit.device import Runtime, choose_device, machine
from trainkit.fit.encoding.prepare import prepare
from trainkit.fit.events import Events
from trainkit.fit.failure import error_of
from trainkit.fit.loop.fit import build_result, build_setup, describe_runtime, fit, one_thread, resolve_for, train
from trainkit.fit.loop.result import FitResult, TrainingOutcome
from trainkit.fit.loop.setup import RunSetup, dropout_seed
from trainkit.fit.loop.training_run import TrainingRun
from trainkit.spec import JobSpec, ResolvedSpec, resolve

OnEvent = Callable[[int, dict[str, Any]], object]
"""(number of the trial, event)"""
When = Literal["auto", "always", "never"]


@dataclass
class BatchTrial:
    """One of the trials, from the document to the result."""

    number: int
    document: JobSpec | Mapping[str, Any]
    send: Callable[[dict[str, Any]], object]
    control: Control | None
    workdir: Path | None
    events: Events = field(init=False)
    resolved: ResolvedSpec | None = None
    setup: RunSetup | None = None
    run: TrainingRun | None = None
    runtime: dict[str, Any] = field(default_factory=dict)
    """The `runtime` event."""
    outcome: FitResult | Exception | None = None

    def __post_init__(self) -> None:
        self.events = Events(self.send)

    def fail(self, error: Exception) -> None:
        """Send the `failed` event, and keep the error as the outcome."""
        self.events.emit("failed", error=error_of(error, self.document))
        self.outcome = error

    def end(self, ended: TrainingOutcome | Exception) -> None:
        """Build the result of a training that has ended."""
        if isinstance(ended, Exception):
            self.fail(ended)
            return
        assert self.run is not None
        try:
            self.outcome = build_result(self.run, ended, self.runtime)
        except Exception as error:
            self.fail(error)


def fit_batch(
    specs: Sequence[JobSpec | Mapping[str, Any]],
    data: Dataset,
    *,
    on_event: OnEvent | None = None,
    control: Control | Sequence[Control | None] | None = None,
    workdir: str | Path | None = None,
    when: When = "auto",
) -> list[FitResult | Exception]:
    """Train each of `specs` on `data`: the results of `fit`, in order, up to rounding.

    `auto` trains them as one model where they are alike enough (`eligible`) and a short
    calibration finds that clearly faster; `always` leaves the calibration out; otherwise, or with `never`, one after
    another. The `runtime` event and result hold `batched`, `trials`, and `calibration` or `why_not`. `on_event` gets
    (number of the trial, event); `control` is one for all or one each: a trial that is stopped leaves the others alone.
    Files go into `workdir`/trial-0 and so on. A trial that fails leaves its exception in its place. Raises ValueError
    with `always` for specs that cannot train as one.
    """
    trials = _trials(specs, on_event, control, workdir)
    for trial in trials:
        try:
            trial.resolved = resolve(trial.document, data.facts)
        except Exception as error:
            trial.fail(error)
    if when == "never":
        _one_by_one(trials, data, "batching is off")
        return _outcomes(trials)
    known = [(trial.number, trial.resolved) for trial in trials if trial.resolved is not None]
    reason = eligible([resolved for _, resolved in known], data.facts)
    if reason is not None:
        reason = replace(reason, trial=known[reason.trial][0])
        _refuse(when, reason)
        _one_by_one(trials, data, str(reason))
        return _outcomes(trials)
    _build_setups(trials, data)
    ready = [trial for trial in trials if trial.setup is not None]
    if ready:
        _train(ready, when)
    return _outcomes(trials)


def _trials(
    specs: Sequence[JobSpec | Mapping[str, Any]],
    on_event: OnEvent | None,
    control: Control | Sequence[Control | None] | None,
    workdir: str | Path | None,
) -> list[BatchTrial]:
    """The trials in order; `control` is one for all or one each, files go into `workdir`/trial-0 and so on."""
    if control is None or isinstance(control, Sequence):
        controls = list(control or [None] * len(specs))
    else:
        controls = [SharedControl(control)] * len(specs)
    return [
        BatchTrial(
            number,
            spec,
            (lambda event: None) if on_event is None else partial(on_event, number),
            trial_control,
            None if workdir is None else Path(workdir) / f"trial-{number}",
        )
        for number, (spec, trial_control) in enumerate(zip(specs, controls, strict=True))
    ]


def _outcomes(trials: Sequence[BatchTrial]) -> list[FitResult | Exception]:
    return [trial.outcome for trial in trials if trial.outcome is not None]


def _refuse(when: When, reason: Reason | str) -> None:
    if when == "always":
        raise ValueError(f"these specs cannot train as one: {reason}")


def _one_by_one(trials: Sequence[BatchTrial], data: Dataset, why_not: str) -> None:
    """Train by `fit`, whose `runtime` only gains why they were not batched."""
    extra = {"trials": len(trials), "why_not": why_not}
    for trial in trials:
        if trial.resolved is None:
            continue

        def send(event: dict[str, Any], trial: BatchTrial = trial) -> None:
            trial.send({**event, **extra} if event["type"] == "runtime" else event)

        try:
            result = fit(trial.resolved, data, on_event=send, control=trial.control, workdir=trial.workdir)
            result.runtime |= extra
            trial.outcome = result
        except Exception as error:  # `fit` has sent the event
            trial.outcome = error


def _build_setups(trials: Sequence[BatchTrial], data: Dataset) -> None:
    """Prepare each trial's data and network. The runtime is chosen once: their networks are alike."""
    runtime: Runtime | None = None
    for trial in trials:
        if trial.resolved is None:
            continue
        try:
            spec, trial_data = resolve_for(trial.resolved, data, trial.events, trial.control)
            device = choose_device(spec.resources.device)
            with one_thread():
                prepared = prepare(spec, trial_data, device, trial.events.phase)
                trial.setup = build_setup(
                    spec,
                    trial_data,
                    prepared,
                    device,
                    trial.events,
                    control=trial.control,
                    workdir=trial.workdir,
                    runtime=runtime,
                )
            runtime = trial.setup.runtime
        except Exception as error:
            trial.fail(error)


def _train(trials: Sequence[BatchTrial], when: When) -> None:
    setups = [trial.setup for trial in trials if trial.setup is not None]
    runtime = setups[0].runtime
    why_not, calibration = obstacle(setups), None
    if why_not is not None:
        _refuse(when, why_not)
    elif when != "always" and len(setups) == 1:
        why_not = "it is the only one"
    elif when != "always":
        with machine(runtime, 0):
            calibration = calibrate(setups)
        why_not = None if calibration.worth_it else "one after another is as fast"
    for trial, setup in zip(trials, setups, strict=True):
        if why_not is None:
            trial.setup = as_batched(setup)
        assert trial.setup is not None
        trial.runtime = {**describe_runtime(trial.setup), **_batching(len(setups), calibration, why_not)}
        trial.events.emit("runtime", **trial.runtime)
    if why_not is None:
        _train_together(trials)
        return
    for trial, setup in zip(trials, setups, strict=True):
        with machine(runtime, dropout_seed(setup.spec)):
            try:
                trial.run = TrainingRun(setup)
                ended: TrainingOutcome | Exception = train(trial.run)
            except Exception as error:
                ended = error
            trial.end(ended)


def obstacle(setups: Sequence[RunSetup]) -> str | None:
    """Return what keeps them from training as one that shows only when the networks are built and the runtime is chosen."""
    runtime = setups[0].runtime
    if runtime.precision != "float32" or runtime.compile or runtime.channels_last:
        return f"{runtime.precision} on {runtime.device} trains alone"
    if any(setup.data.train.side_input is not None for setup in setups):
        return "sequences of unequal lengths train alone"
    if not same_shape([setup.network for setup in setups]):
        return "their preprocessing leaves networks of different shapes"
    return None


def _batching(trials: int, calibration: Calibration | None, why_not: str | None) -> dict[str, Any]:
    """What the `runtime` event says of the batching."""
    fields: dict[str, Any] = {"trials": trials}
    if calibration is not None:
        fields["calibration"] = calibration.as_dict()
    return fields if why_not is None else {**fields, "why_not": why_not}


def _train_together(trials: Sequence[BatchTrial]) -> None:
    runs = []
    for trial in trials:
        assert trial.setup is not None
        trial.run = TrainingRun(trial.setup)
        runs.append(trial.run)
    try:
        train_together(runs, lambda number, ended: trials[number].end(ended))
    except Exception as error:  # of what they do together: none of them can go on
        for trial in trials:
            if trial.outcome is None:
                trial.fail(error)


def as_batched(setup: RunSetup) -> RunSetup:
    """Return the setup of a run that is trained with others: its runtime says so, and its dropout has a generator."""
    dropout = torch.Generator(setup.device).manual_seed(dropout_seed(setup.spec))
    return replace(setup, runtime=replace(setup.runtime, batched=True), dropout=dropout)


def train_together(runs: Sequence[TrainingRun], on_end: Callable[[int, TrainingOutcome | Exception], None]) -> None:
    """Train runs of setups `as_batched` that have no `obstacle` until the last one has ended.

    `on_end` gets the place of each run that ends, and its outcome or its own error, while the others go on. Raises the
    error of a step that they do together.
    """
    batched = [BatchedRun(number, run) for number, run in enumerate(runs)]
    with machine(runs[0].setup.runtime, 0):
        BatchedRunner(batched, lambda one, ended: on_end(one.number, ended)).run()
