"""Trials trained as one model against the same trials one after another, on scikit-learn's digits.

The step's ratio is what the calibration finds; the whole run's holds preparation, evaluations, rules and rows as well,
which each trial has for itself either way. Both ways in turn, one thread; a whole run is told in processor time.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from trainkit.data import Dataset
from trainkit.fit.batched import fit_batch
from trainkit.fit.batched.run import When

EPOCHS = 4
ROUNDS = 3
MODELS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "MLP 64-128-128-10": ({"kind": "mlp", "hidden": [128, 128]}, (5, 10, 30)),
    "MLP, dropout and batch norm": ({"kind": "mlp", "hidden": [128, 128], "dropout": 0.3, "norm": "batch"}, (10,)),
    "linear": ({"kind": "linear"}, (5, 10, 30)),
    "CNN 8-16 on 8 x 8": ({"kind": "cnn", "channels": [8, 16]}, (5, 10)),
}


def specs(model: dict[str, Any], trials: int) -> list[dict[str, Any]]:
    """Trials that differ in seed, split, rate and penalty."""
    return [
        {
            "dataset": "digits",
            "model": model,
            "split": {"seed": k},
            "train": {"epochs": EPOCHS, "seed": k, "threads": 1},
            "optimizer": {"kind": "adam", "lr": 1e-3 * (1 + k)},
            "regularize": {"l2": 0.1 * k},
        }
        for k in range(trials)
    ]


def seconds(documents: list[dict[str, Any]], data: Dataset, when: When) -> float:
    """Of a whole run of all trials, as the processor counts them: others on the machine are left out."""
    begun = time.process_time()
    for result in fit_batch(documents, data, when=when):
        if isinstance(result, Exception):
            raise result
    return time.process_time() - begun


def main() -> None:
    """Print both ratios for each network and number of trials."""
    x, y = load_digits(return_X_y=True)
    pixels = np.asarray(x, np.float32) / 16
    print(f"loop / batched, digits, {EPOCHS} epochs of batch 64, {ROUNDS} rounds in turn", flush=True)
    for name, (model, counts) in MODELS.items():
        data = Dataset.from_arrays(pixels.reshape(-1, 1, 8, 8) if model["kind"] == "cnn" else pixels, y)
        for trials in counts:
            documents = specs(model, trials)
            times: dict[When, list[float]] = {"never": [], "always": []}
            for _ in range(ROUNDS):
                for when, measured in times.items():
                    measured.append(seconds(documents, data, when))
            first = fit_batch(documents, data)[0]
            gain = 0.0 if isinstance(first, Exception) else first.resolved["calibration"]["gain"]
            ratios = [loop / one for loop, one in zip(times["never"], times["always"], strict=True)]
            print(
                f"  {name:28} K={trials:<3} a step {gain:5.2f}   whole runs {median(ratios):5.2f} "
                f"({', '.join(f'{ratio:.2f}' for ratio in ratios)})",
                flush=True,
            )


if __name__ == "__main__":
    main()
