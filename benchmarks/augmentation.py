"""Augmented training on 28x28 images: trainkit against the same transforms of torchvision v2 in a DataLoader.

Both train the same small MLP for some epochs on the same cores with rotation, translation and mirroring. The peer is
run with the DataLoader in the main process and with one loader process per core; the faster one counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from examples.real_data import fetch

ROOT = Path(__file__).parents[1]
ROUNDS, EPOCHS, SAMPLES, BATCH = 3, 3, 6000, 128


def measure_trainkit(data: Path) -> float:
    """Return the seconds per epoch of `trainkit.fit`."""
    import time

    import trainkit as tk
    from benchmarks.bare_loop import fashion

    x, y = fashion(data)
    images = tk.Dataset.from_arrays(x[:SAMPLES].reshape(-1, 1, 28, 28).numpy(), y[:SAMPLES].numpy())
    ends: list[float] = []

    def listen(event: dict[str, object]) -> None:
        if event["type"] == "phase" and str(event["phase"]).startswith(("epoch ", "evaluating")):
            ends.append(time.perf_counter())

    spec = {
        "dataset": "d",
        "split": {"train": 1, "validation": 0, "test": 0},
        "model": {"kind": "mlp", "hidden": [64]},
        "augment": [
            {"kind": "rotate", "degrees": 15},
            {"kind": "translate", "fraction": 0.1},
            {"kind": "horizontal_flip"},
        ],
        "optimizer": {"kind": "adam"},
        "train": {"epochs": EPOCHS + 1, "batch_size": BATCH},
    }
    tk.fit(spec, images, on_event=listen)
    return (ends[EPOCHS] - ends[1]) / (EPOCHS - 1)


def measure_torchvision(data: Path, workers: int) -> float:
    """Return the seconds per epoch of a torch loop over a DataLoader."""
    import time

    import torch
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import InterpolationMode, v2

    from benchmarks.bare_loop import fashion

    x, y = fashion(data)
    x, y = x[:SAMPLES].reshape(-1, 1, 28, 28), y[:SAMPLES]
    transform = v2.Compose(
        [
            v2.RandomAffine(15, translate=(0.1, 0.1), interpolation=InterpolationMode.BILINEAR),
            v2.RandomHorizontalFlip(),
        ]
    )

    class Augmented(Dataset[tuple[torch.Tensor, torch.Tensor]]):
        def __len__(self) -> int:
            return len(x)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            return transform(x[index]), y[index]

    loader = DataLoader(
        Augmented(), batch_size=BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(784, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    ends = []
    for _ in range(EPOCHS):
        for images, labels in loader:
            loss = torch.nn.functional.cross_entropy(network(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        ends.append(time.perf_counter())
    return (ends[-1] - ends[0]) / (EPOCHS - 1)


def measure_in_process(*arguments: str) -> float:
    """Run one measurement in a separate process."""
    command = [sys.executable, "-m", "benchmarks.augmentation", *arguments]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)


def main() -> None:
    """Print medians and the ratio; with arguments, one measurement."""
    data = fetch("fashion-mnist", ROOT / ".cache/data")
    if sys.argv[1:2] == ["trainkit"]:
        print(measure_trainkit(data))
        return
    if sys.argv[1:2] == ["torchvision"]:
        print(measure_torchvision(data, int(sys.argv[2])))
        return
    cores = len(os.sched_getaffinity(0))
    trainkit_seconds, loader, loaders = [], [], []
    for _ in range(ROUNDS):
        trainkit_seconds.append(measure_in_process("trainkit"))
        loader.append(measure_in_process("torchvision", "0"))
        loaders.append(measure_in_process("torchvision", str(cores)))
    best = min(median(loader), median(loaders))
    print(f"augmented MLP training, {SAMPLES} images of 28x28, batch {BATCH}, {cores} cores, {ROUNDS} rounds in turn")
    print(f"  trainkit                            {median(trainkit_seconds):7.3f} s an epoch")
    print(f"  torchvision v2, loader inside       {median(loader):7.3f} s")
    print(f"  torchvision v2, {cores} loader processes {median(loaders):7.3f} s")
    print(f"  the peer's faster way takes         {best / median(trainkit_seconds):7.1f} times as long")


if __name__ == "__main__":
    main()
