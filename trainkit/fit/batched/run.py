"""`fit_batch`: from K specs and a dataset to K trained models, together where that is possible and faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from trainkit.data import Dataset
from trainkit.fit.batched.calibration import Calibration, calibrate
from trainkit.fit.batched.parameter_stack import same_shape
from trainkit.fit.batched.runner import Rounds, Trial
from trainkit.fit.batched.trial import Asked, OnEvent, ask
from trainkit.fit.control import Control
from trainkit.fit.device import Decided, choose_device, machine
from trainkit.fit.loop import train
from trainkit.fit.prepare import prepare
from trainkit.fit.run import FitResult, assembled, chosen_of, dropout_seed, fit, one_thread, settled
from trainkit.fit.run_state import Job, TrainingOutcome
from trainkit.spec import JobSpec, check_spec
from trainkit.spec.batching import Reason, eligible

When = Literal["auto", "always", "never"]


def fit_batch(
    specs: Sequence[JobSpec | Mapping[str, Any]],
    data: Dataset,
    *,
    on_event: OnEvent | None = None,
    control: Control | Sequence[Control | None] | None = None,
    workdir: str | Path | None = None,
    when: When = "auto",
) -> list[FitResult | Exception]:
    """Train what each of `specs` says on `data`: the results of `fit`, in order, up to rounding.

    `auto` trains them as one model where they are alike enough (`trainkit.spec.batching.eligible`) and a short
    calibration finds that clearly faster; `always` leaves that out; otherwise, or with `never`, one after another.
    The `resolved` event and result tell `batched`, `trials`, and `calibration` or `why_not`. `on_event` gets (number of
    the trial, event); `control` is one for all or one each: a trial that is stopped leaves the others alone. Files go
    into `workdir`/trial-0 and so on. A trial that fails leaves its exception in its place. Raises ValueError with
    `always` for specs that cannot train as one.
    """
    trials = ask(specs, on_event, control, workdir)
    for trial in trials:
        try:
            trial.spec = trial.asked if isinstance(trial.asked, JobSpec) else check_spec(dict(trial.asked), data.facts)
        except Exception as error:
            trial.failed(error)
    if when == "never":
        _one_by_one(trials, data, "batching is off")
        return _outcomes(trials)
    known = [(trial.number, trial.spec) for trial in trials if trial.spec is not None]
    reason = eligible([spec for _, spec in known], data.facts)
    if reason is not None:
        reason = replace(reason, trial=known[reason.trial][0])
        _refuse(when, reason)
        _one_by_one(trials, data, str(reason))
        return _outcomes(trials)
    _assemble(trials, data)
    ready = [trial for trial in trials if trial.job is not None]
    if ready:
        _train(ready, when)
    return _outcomes(trials)


def _outcomes(trials: Sequence[Asked]) -> list[FitResult | Exception]:
    return [trial.outcome for trial in trials if trial.outcome is not None]


def _refuse(when: When, reason: Reason | str) -> None:
    if when == "always":
        raise ValueError(f"these specs cannot train as one: {reason}")


def _one_by_one(trials: Sequence[Asked], data: Dataset, why_not: str) -> None:
    """By `fit`, whose `resolved` only gains why they were not batched."""
    told = {"trials": len(trials), "why_not": why_not}
    for trial in trials:
        if trial.spec is None:
            continue

        def send(event: dict[str, Any], trial: Asked = trial) -> None:
            trial.send({**event, **told} if event["type"] == "resolved" else event)

        try:
            result = fit(trial.spec, data, on_event=send, control=trial.control, workdir=trial.workdir)
            result.resolved |= told
            trial.outcome = result
        except Exception as error:  # told by `fit` already
            trial.outcome = error


def _assemble(trials: Sequence[Asked], data: Dataset) -> None:
    """Prepare each trial's data and network. What `auto` means is decided once, for they are alike."""
    decided: Decided | None = None
    for trial in trials:
        if trial.spec is None:
            continue
        try:
            spec, own = settled(trial.spec, data, trial.events, trial.control)
            device = choose_device(spec.resources.device)
            with one_thread():
                prepared = prepare(spec, own, device, trial.events.phase)
                trial.job = assembled(spec, own, prepared, device, trial.events, trial.control, trial.workdir, decided)
            decided = trial.job.decided
        except Exception as error:
            trial.failed(error)


def _train(trials: Sequence[Asked], when: When) -> None:
    jobs = [trial.job for trial in trials if trial.job is not None]
    decided = jobs[0].decided
    why_not, figures = _in_the_way(jobs), None
    if why_not is not None:
        _refuse(when, why_not)
    elif when != "always" and len(jobs) == 1:
        why_not = "it is the only one"
    elif when != "always":
        with machine(decided, 0):
            figures = calibrate(jobs)
        why_not = None if figures.worth_it else "one after another is as fast"
    for trial, job in zip(trials, jobs, strict=True):
        if why_not is None:
            job.decided = replace(decided, batched=True)
            job.dropout = torch.Generator(job.device).manual_seed(dropout_seed(job.spec))
        trial.chosen = {**chosen_of(job), **_told(len(jobs), figures, why_not)}
        trial.events.emit("resolved", **trial.chosen)
    if why_not is None:
        _together(trials, jobs)
        return
    for trial, job in zip(trials, jobs, strict=True):
        with machine(decided, dropout_seed(job.spec)):
            try:
                ended: TrainingOutcome | Exception = train(job)
            except Exception as error:
                ended = error
            trial.ended(ended)


def _in_the_way(jobs: Sequence[Job]) -> str | None:
    """What only shows when the networks are built and the machine is known."""
    decided = jobs[0].decided
    if decided.precision != "float32" or decided.compile or decided.channels_last:
        return f"{decided.precision} on {decided.device} trains alone"
    if any(job.data.train.lengths is not None for job in jobs):
        return "sequences of unequal lengths train alone"
    if not same_shape([job.network for job in jobs]):
        return "their preprocessing leaves networks of different shapes"
    return None


def _told(trials: int, figures: Calibration | None, why_not: str | None) -> dict[str, Any]:
    told: dict[str, Any] = {"trials": trials}
    if figures is not None:
        told["calibration"] = figures.as_dict()
    return told if why_not is None else {**told, "why_not": why_not}


def _together(trials: Sequence[Asked], jobs: Sequence[Job]) -> None:
    running = [Trial(number, job) for number, job in enumerate(jobs)]
    with machine(jobs[0].decided, 0):
        try:
            Rounds(running, lambda trial, how: trials[trial.number].ended(how)).run()
        except Exception as error:  # of what they do together: none of them can go on
            for trial in trials:
                if trial.outcome is None:
                    trial.failed(error)
