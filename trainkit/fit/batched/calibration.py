"""Whether many trials at once are faster than one after another: measured here, on these networks and these batches."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import torch

from trainkit.fit.batched.parameter_stack import Stack
from trainkit.fit.batched.runner import gradients
from trainkit.fit.batched.update import Updates
from trainkit.fit.batches import Steps
from trainkit.fit.phases import open_phase, plan_phases
from trainkit.fit.run_state import Job
from trainkit.fit.seeding import epoch_order
from trainkit.fit.train_step import Gradient, Update

CLEAR_GAIN = 1.1
"""Together must be this much faster; a tie or noise means one after another."""
SECONDS = 0.3
MOST_ROUNDS = 15
MOST_LOOPED = 4
"""So many trials stand for all of them in the loop, where one costs as much as the other."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Seconds that one step of all trials takes: medians of `rounds` alternating ones, after one to warm up."""

    loop_seconds: float
    batched_seconds: float
    rounds: int

    @property
    def gain(self) -> float:
        """How many times faster it is to train them together."""
        return self.loop_seconds / self.batched_seconds

    @property
    def worth_it(self) -> bool:
        """Whether they should be."""
        return self.gain >= CLEAR_GAIN

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "gain": round(self.gain, 3)}


def calibrate(jobs: Sequence[Job]) -> Calibration:
    """Time the first step of these jobs both ways, on copies of their networks. Draws from the global generator."""
    device = jobs[0].device
    single, together = [_first_step(job) for job in jobs[:MOST_LOOPED]], [_first_step(job) for job in jobs]
    stack = Stack([work.job.network for work in together])
    updates = Updates(stack, [work.gradient for work in together])

    def loop() -> None:
        for work in single:
            work.gradient.do()
            work.update.do()

    def batched() -> None:
        wanted = [work.gradient for work in together]
        gradients(stack, wanted, [work.job for work in together])
        updates.penalise(wanted)
        updates.step([work.update for work in together])

    begun = time.perf_counter()
    loop()
    batched()
    times: dict[Callable[[], None], list[float]] = {loop: [], batched: []}
    while not times[loop] or (len(times[loop]) < MOST_ROUNDS and time.perf_counter() - begun < SECONDS):
        for way, seconds in times.items():
            seconds.append(_seconds(way, device))
    return Calibration(median(times[loop]) * len(jobs) / len(single), median(times[batched]), len(times[loop]))


@dataclass(frozen=True, slots=True)
class _Step:
    """A job's first step on a copy of its network."""

    job: Job
    gradient: Gradient
    update: Update


def _first_step(job: Job) -> _Step:
    spec, data = job.spec, job.data
    network = copy.deepcopy(job.network)
    own = replace(job, network=network, forward=network, dropout=torch.Generator(job.device))
    batches = Steps(own)
    plan = plan_phases(spec)[0]
    now_open = open_phase(spec, plan, network, network, data.train, data.val, batches.count, data.preprocessing)
    order = data.draw[epoch_order(batches.samples, spec.train.seed, 1)].to(job.device)
    start, end = batches.span(0)
    batch = batches.batch(now_open.train, order[start:end], 1, 0)
    nothing = torch.zeros((), device=job.device)
    network.train()
    wanted = Gradient(spec, now_open, batches, batch, nothing, nothing.clone(), 1, 0, 0.0)
    return _Step(own, wanted, Update(spec, now_open))


def _seconds(way: Callable[[], None], device: torch.device) -> float:
    # One thread on the CPU is told its own time: what else the machine does meanwhile says nothing of either way.
    clock = time.thread_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    begun = clock()
    way()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - begun
