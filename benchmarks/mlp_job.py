"""The 784-500-500-10 MLP on Fashion-MNIST: a real job against a bare torch loop on resident tensors.

Both train with fused Adam and batch 100 on 54,000 images and evaluate 6,000 after every epoch, with the same number
of threads; the job also logs, checkpoints and keeps its best weights. The two run in turn; a figure is the time from
the end of the first epoch to the end of the last, divided by the epochs between, so start-up counts for neither.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.service import epoch_ends, finished, service, upload
from examples.real_data import fetch

EPOCHS = 4
ROUNDS = 3
ROOT = Path(__file__).parents[1]

BARE_LOOP = """
import gzip, io, sys, time, zipfile
import numpy as np, torch
threads, epochs, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(threads); torch.manual_seed(0)
with zipfile.ZipFile(path) as archive:
    raw = {n: gzip.decompress(archive.read(n)) for n in archive.namelist()}
x = np.frombuffer(raw["train-images-idx3-ubyte.gz"], np.uint8, offset=16).reshape(-1, 784)
y = np.frombuffer(raw["train-labels-idx1-ubyte.gz"], np.uint8, offset=8)
x, y = torch.from_numpy(x.astype(np.float32) / 255), torch.from_numpy(y.astype(np.int64))
x, y, xv, yv = x[:54000].clone(), y[:54000].clone(), x[54000:].clone(), y[54000:].clone()
net = torch.nn.Sequential(torch.nn.Linear(784, 500), torch.nn.ReLU(), torch.nn.Linear(500, 500), torch.nn.ReLU(),
                          torch.nn.Linear(500, 10))
optimizer, loss_of = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True), torch.nn.functional.cross_entropy
ends = []
for epoch in range(epochs):
    order = torch.randperm(len(x))
    for i in range(0, len(x), 100):
        batch = order[i:i + 100]
        loss = loss_of(net(x[batch]), y[batch])
        optimizer.zero_grad(set_to_none=True); loss.backward(); optimizer.step()
    with torch.inference_mode():
        logits = net(xv); float(loss_of(logits, yv)); float((logits.argmax(1) == yv).float().mean())
    ends.append(time.perf_counter())
print((ends[-1] - ends[0]) / (epochs - 1))
"""


def bare(threads: int, data: Path) -> float:
    """Seconds an epoch of the bare loop, in a process of its own."""
    command = [sys.executable, "-c", BARE_LOOP, str(threads), str(EPOCHS), str(data)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout)


def main() -> None:
    """Print both medians and their ratio."""
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    data = fetch("fashion-mnist", ROOT / ".cache/data")
    spec = {
        "name": "bench-mlp",
        "split": {"train": 9, "validation": 1, "test": 0},
        "model": {"kind": "mlp", "hidden": [500, 500]},
        "optimizer": {"kind": "adam", "lr": 1e-3},
        "train": {"epochs": EPOCHS, "batch_size": 100, "threads": threads},
    }
    jobs, floors = [], []
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as client:
        dataset = upload(client, data)
        for _ in range(ROUNDS):
            floors.append(bare(threads, data))
            ends = epoch_ends(client, finished(client, {**spec, "dataset": dataset})["id"])
            jobs.append((ends[-1] - ends[0]) / (EPOCHS - 1))
    ratios = [job / floor for job, floor in zip(jobs, floors, strict=True)]
    print(
        f"784-500-500-10 MLP, Fashion-MNIST 54,000, batch 100, fused Adam, {threads} thread(s), {ROUNDS} rounds in turn"
    )
    print(f"  bare torch loop   {median(floors):7.3f} s an epoch (median)")
    print(f"  trainkit job      {median(jobs):7.3f} s an epoch (median)")
    print(f"  ratio             {median(ratios):7.3f}   (each round: {', '.join(f'{r:.3f}' for r in ratios)})")


if __name__ == "__main__":
    main()
