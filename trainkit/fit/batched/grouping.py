"""Which runs train as one by a rule on facts, where the same input must give the same groups each time.

One by one / as one, in processor seconds of whole runs with their evaluations, each with a rate of its own, and of four
or eight one twice as long (Adam, 600 training samples, one thread of a busy machine, best of two, 2026-11-30):

| network, batch | multiply-adds of a forward pass | 2 runs | 4 runs | 8 runs |
|---|---|---|---|---|
| linear 20-2, 64 | 0.003 million | 1.1 | 1.3 | 1.8 |
| MLP 20-64-2, 64 | 0.09 million | 1.2 | 1.4 | 1.8 |
| CNN 16 on 8 x 8 pixels, 64 | 0.6 million | 1.2 | 1.2 | 1.4 |
| CNN 16-32 on 8 x 8 pixels, 32 | 2.7 million | 1.1 | 1.4 | 1.7 |
| MLP 20-256-256-2, 64 | 4.6 million | 1.0 | 1.1 | 1.3 |
| MLP 20-512-512-2, 64 | 17 million | 0.9 | 0.9 | 1.1 |

An investigation of 14 runs of the first MLP, five of which train as one, takes 2.3 and 2.4 s where one by one it takes
2.8 and 2.6 s.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainkit.fit.batched.eligibility import eligible
from trainkit.spec.estimate import PROCESS_BYTES, estimate
from trainkit.spec.facts import DatasetFacts
from trainkit.spec.resolve import ResolvedSpec

MOST_RUNS = 8
MOST_MULTIPLY_ADDS = 5_000_000
"""Of a run's forward pass over one batch: in larger ones the arithmetic, and not the calls, takes the time."""
MOST_BYTES = 2**28
"""What the runs, with their data, may hold together by the estimate."""


def train_with_first(specs: Sequence[ResolvedSpec], facts: DatasetFacts, device: torch.device) -> list[int]:
    """Return the places of the runs to train as one with the first of `specs`, which is among them.

    The first alone where a step is long, and on another device than the CPU, which was not measured. At most MOST_RUNS.
    """
    together = [0]
    if device.type != "cpu" or _multiply_adds(specs[0], facts) > MOST_MULTIPLY_ADDS:
        return together
    needed = _bytes(specs[0], facts)
    for place, other in enumerate(specs[1:], start=1):
        more = _bytes(other, facts)
        if len(together) < MOST_RUNS and needed + more <= MOST_BYTES and eligible([specs[0], other], facts) is None:
            together.append(place)
            needed += more
    return together


def _multiply_adds(resolved: ResolvedSpec, facts: DatasetFacts) -> int:
    return int(estimate(resolved, facts)["multiply_adds"]) * resolved.spec.train.batch_size


def _bytes(resolved: ResolvedSpec, facts: DatasetFacts) -> int:
    return int(estimate(resolved, facts)["memory_bytes"]) - PROCESS_BYTES
