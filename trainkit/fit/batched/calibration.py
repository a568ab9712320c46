"""Whether many trials at once are faster than one after another: measured on these networks and these batches."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import torch

from trainkit.fit.batched.parameter_stack import ParameterStack
from trainkit.fit.batched.runner import BatchedRun, StackedUpdates, compute_gradients
from trainkit.fit.events import Events
from trainkit.fit.loop.setup import RunSetup
from trainkit.fit.loop.train_step import train_step
from trainkit.fit.loop.training_run import TrainingRun

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


def calibrate(setups: Sequence[RunSetup]) -> Calibration:
    """Time the first step of these runs both ways, on copies of their networks. Draws from the global generator."""
    device = setups[0].device
    single, together = [_first_step(setup) for setup in setups[:MOST_LOOPED]], [_first_step(setup) for setup in setups]
    stack = ParameterStack([batched.run.setup.network for batched in together])
    updates = StackedUpdates(stack, together)

    def loop() -> None:
        for batched in single:
            run = batched.run
            train_step(run.setup, run.batches, run.state.phase, batched.batch, run.loss_sums, lambda _loss: True)

    def batched_step() -> None:
        compute_gradients(stack, together)
        updates.add_penalties(together)
        updates.step(together)

    begun = time.perf_counter()
    loop()
    batched_step()
    times: dict[Callable[[], None], list[float]] = {loop: [], batched_step: []}
    while not times[loop] or (len(times[loop]) < MOST_ROUNDS and time.perf_counter() - begun < SECONDS):
        for way, seconds in times.items():
            seconds.append(_seconds(way, device))
    loop_seconds = median(times[loop]) * len(setups) / len(single)
    return Calibration(loop_seconds, median(times[batched_step]), len(times[loop]))


def _first_step(setup: RunSetup) -> BatchedRun:
    """A run of a copy of the network, with its first batch; it sends no events and writes nothing."""
    network = copy.deepcopy(setup.network)
    dropout = torch.Generator(setup.device)
    copied = replace(setup, network=network, forward=network, dropout=dropout)
    run = TrainingRun(replace(copied, events=Events(None), control=None, workdir=None))
    run.begin_epoch()
    batch = run.next_step()
    assert batch is not None
    batched = BatchedRun(0, run)
    batched.batch = batch
    return batched


def _seconds(way: Callable[[], None], device: torch.device) -> float:
    # One thread on the CPU is told its own time: what else the machine does meanwhile says nothing of either way.
    clock = time.thread_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    begun = clock()
    way()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - begun
