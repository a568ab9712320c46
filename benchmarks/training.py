"""Real jobs against bare torch loops on resident tensors: an MLP, a small CNN and an LSTM on Fashion-MNIST.

Both train with fused Adam and the same number of threads, and evaluate after every epoch; the job also logs, decides
about early stopping, writes a checkpoint every second and keeps its best weights. They run in turn; a figure is the time
from the end of the first epoch to the end of the last, divided by the epochs between, so start-up counts for neither.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np

from benchmarks.bare_loop import CASES, fashion
from benchmarks.service import epoch_ends, finished, service, upload
from examples.real_data import fetch

EPOCHS = 6
ROUNDS = 3
ROOT = Path(__file__).parents[1]
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"kind": "mlp", "hidden": [500, 500]},
    "cnn": {"kind": "cnn", "channels": [16, 32]},
    "lstm": {"kind": "lstm", "hidden": 64},
}
TITLES = {"mlp": "MLP 784-500-500-10", "cnn": "CNN 16-32, batch norm", "lstm": "LSTM 64 over 28 rows"}


def bare(name: str, threads: int, data: Path) -> float:
    """Seconds an epoch of the bare loop, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bare_loop", name, str(threads), str(EPOCHS), str(data)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
    return float(done.stdout)


def job(client: httpx.Client, name: str, threads: int, dataset: str) -> float:
    """Seconds an epoch of the same training as a job."""
    case = CASES[name]
    spec = {
        "name": f"bench-{name}",
        "dataset": dataset,
        "split": {"train": case.training, "validation": case.validation, "test": 0},
        "model": MODELS[name],
        "optimizer": {"kind": "adam", "lr": 1e-3},
        "early_stop": [{"kind": "patience", "patience": 1000}, {"kind": "diverged"}],
        "train": {"epochs": EPOCHS, "batch_size": case.batch, "threads": threads, "checkpoint_seconds": 1},
    }
    ends = epoch_ends(client, finished(client, spec)["id"])
    return (ends[-1] - ends[0]) / (EPOCHS - 1)


def written(folder: Path, name: str, data: Path) -> Path:
    """The case's samples as a file to upload."""
    case = CASES[name]
    n = case.training + case.validation
    x, y = fashion(data)
    samples = x[:n].reshape(-1, *case.shape).numpy()
    path = folder / f"{name}.npz"
    if name == "lstm":
        offsets = np.arange(n + 1) * case.shape[0]
        np.savez(path, values=samples.reshape(-1, case.shape[1]), offsets=offsets, y=y[:n].numpy())
    else:
        np.savez(path, X=samples, y=y[:n].numpy())
    return path


def main() -> None:
    """Print both medians and their ratio for each network."""
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    data = fetch("fashion-mnist", ROOT / ".cache/data")
    print(
        f"trainkit jobs against bare torch loops: fused Adam, {threads} thread(s), {ROUNDS} rounds in turn", flush=True
    )
    with tempfile.TemporaryDirectory() as scratch, service(Path(scratch)) as client:
        for name in CASES:
            dataset = upload(client, written(Path(scratch), name, data))
            floors, jobs = [], []
            for _ in range(ROUNDS):
                floors.append(bare(name, threads, data))
                jobs.append(job(client, name, threads, dataset))
            ratios = [ours / floor for ours, floor in zip(jobs, floors, strict=True)]
            print(
                f"  {TITLES[name]:24} bare {median(floors):7.3f} s an epoch   job {median(jobs):7.3f} s   "
                f"ratio {median(ratios):.3f}  ({', '.join(f'{ratio:.3f}' for ratio in ratios)})",
                flush=True,
            )


if __name__ == "__main__":
    main()
