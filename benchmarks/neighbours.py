"""Two threads beside busy processes: steps of a network as the service's processes wait, against libgomp's own default.

A busy process for each core takes turns with the training process, as on any machine that runs two things at once. One
thread is the floor. `GOMP_SPINCOUNT` says how long a thread spins at a barrier before it sleeps; `client/home.py` sets
it.

    python -m benchmarks neighbours
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from service.cli.home import Home

ROUNDS, SECONDS = 3, 3.0
VARIABLE = "GOMP_SPINCOUNT"


def measure(threads: int) -> float:
    """Steps a second of Adam on the network 784-500-500-10, batch 100, in this process."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(threads)
    network = nn.Sequential(nn.Linear(784, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU(), nn.Linear(500, 10))
    optimizer = torch.optim.Adam(network.parameters())
    x, y = torch.randn(100, 784), torch.randint(10, (100,))
    steps, begun = 0, time.perf_counter()
    while time.perf_counter() < begun + SECONDS:
        optimizer.zero_grad()
        functional.cross_entropy(network(x), y).backward()
        optimizer.step()
        steps += 1
    return steps / (time.perf_counter() - begun)


def _run(threads: int, spins: str | None) -> float:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if spins is not None:
        environment[VARIABLE] = spins
    command = [sys.executable, "-m", "benchmarks.neighbours", str(threads)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Print the ratios of one run; every way in turn, medians."""
    spins = Home(Path()).environment({})[VARIABLE]
    cores = len(os.sched_getaffinity(0))
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    ways: dict[str, tuple[int, str | None]] = {
        "one thread": (1, None),
        f"{cores} threads, default": (cores, None),
        f"{cores} threads, {VARIABLE}={spins}": (cores, spins),
    }
    measured: dict[str, list[float]] = {way: [] for way in ways}
    try:
        for _ in range(ROUNDS):
            for way, (threads, count) in ways.items():
                measured[way].append(_run(threads, count))
    finally:
        for process in busy:
            process.kill()
            process.wait()
    floor = median(measured["one thread"])
    print(f"steps a second beside {cores} busy processes, as a share of one thread's:")
    for way, rates in measured.items():
        print(f"  {way}: {median(rates) / floor:.2f}")


if __name__ == "__main__":
    print(measure(int(sys.argv[1])))
