"""The floor: plain torch loops on resident tensors, with the models, batches and optimizers of `benchmarks.training`.

    python -m benchmarks.bare_loop mlp|cnn|lstm THREADS EPOCHS FASHION_MNIST_ZIP

Prints the seconds of an epoch (training, then loss and accuracy on the validation part), the first epoch left out.
"""

from __future__ import annotations

import gzip
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


class LastStep(nn.Module):
    """An LSTM over rows of pixels; its last hidden state is classified."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(width, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, F) to (B, 10)."""
        return self.head(self.recurrent(x)[1][0][-1])


def block(inputs: int, outputs: int) -> list[nn.Module]:
    """Convolution, batch norm, relu, pooling."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]


@dataclass(frozen=True)
class Case:
    """One network, the shape of its samples, and how many train and validate."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    training: int
    validation: int
    batch: int


CASES = {
    "mlp": Case(
        lambda: nn.Sequential(nn.Linear(784, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU(), nn.Linear(500, 10)),
        (784,),
        18000,
        2000,
        100,
    ),
    "cnn": Case(
        lambda: nn.Sequential(*block(1, 16), *block(16, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
        (1, 28, 28),
        9000,
        1000,
        100,
    ),
    "lstm": Case(lambda: LastStep(28, 64), (28, 28), 9000, 1000, 100),
}


def fashion(path: Path) -> tuple[Tensor, Tensor]:
    """Pixels in [0, 1], (60000, 784), and labels."""
    with zipfile.ZipFile(path) as archive:
        images = gzip.decompress(archive.read("train-images-idx3-ubyte.gz"))
        labels = gzip.decompress(archive.read("train-labels-idx1-ubyte.gz"))
    x = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 784).astype(np.float32) / 255
    return torch.from_numpy(x), torch.from_numpy(np.frombuffer(labels, np.uint8, offset=8).astype(np.int64))


def seconds_an_epoch(case: Case, x: Tensor, y: Tensor, epochs: int) -> float:
    """Train for so many epochs; the mean of all but the first."""
    torch.manual_seed(0)
    n, held = case.training, case.training + case.validation
    x, y, xv, yv = x[:n].clone(), y[:n].clone(), x[n:held].clone(), y[n:held].clone()
    network = case.make()
    optimizer, loss_of = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True), nn.functional.cross_entropy
    ends = []
    for _ in range(epochs):
        network.train()
        order = torch.randperm(n)
        for start in range(0, n, case.batch):
            rows = order[start : start + case.batch]
            loss = loss_of(network(x[rows]), y[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        network.eval()
        with torch.inference_mode():
            logits = network(xv)
            float(loss_of(logits, yv))
            float((logits.argmax(1) == yv).float().mean())
        ends.append(time.perf_counter())
    return (ends[-1] - ends[0]) / (epochs - 1)


def main() -> None:
    name, threads, epochs, path = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    torch.set_num_threads(threads)
    x, y = fashion(path)
    case = CASES[name]
    print(seconds_an_epoch(case, x.reshape(-1, *case.shape), y, epochs))


if __name__ == "__main__":
    main()
