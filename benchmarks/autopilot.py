"""Autopilot within 8 jobs against the catalogue's default spec, on ten real datasets, by the test part.

    python -m benchmarks autopilot                 all of them
    python -m benchmarks.autopilot iris digits     or some

The default spec is the first of the 8 jobs. Choosing looks at the validation part alone; the test part is measured
afterwards, of the default's model and of the chosen one. Small sets are cut and trained with three seeds each, and the
means compared: their test parts are too small to tell by one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import mean

import torch

import trainkit as tk
from benchmarks.real_sets import REAL_SETS, base_spec
from trainkit.fit.fit_and_diagnose import DiagnosedRun

ROOT = Path(__file__).parents[1]
JOBS = 8
FEW, SEEDS = 1000, (0, 1, 2)
"""Datasets with fewer samples are run with all SEEDS, larger ones with the first."""


def test_metrics(run: DiagnosedRun | None) -> tuple[float, float]:
    """Return (accuracy or R^2, loss) on the test part; -inf and inf without a model."""
    if run is None or run.result is None or run.result.evaluation is None:
        return float("-inf"), float("inf")
    test = run.result.evaluation["parts"]["test"]
    return test["accuracy" if "accuracy" in test else "r2"], test["loss"]


def compare_on(name: str) -> tuple[list[tuple[float, float]], list[tuple[float, float]], list[str]]:
    """Return (metrics of the default, metrics of the best run, changes that led to it), one entry for each seed."""
    data = REAL_SETS[name].load(ROOT / ".cache/data")
    default, chosen, changes = [], [], []
    for seed in SEEDS if data.facts.samples < FEW else SEEDS[:1]:
        result = tk.autopilot(base_spec(name, seed), data, jobs=JOBS)
        default.append(test_metrics(result.runs[0]))
        chosen.append(test_metrics(result.best))
        codes, index = [], result.done.best
        while index is not None:
            codes.append(result.tried[index].step.code)
            index = result.tried[index].step.source
        changes.append(" + ".join(reversed([code for code in codes if code])) or "the default")
        print("".join(f"    {entry['text']}\n" for entry in result.explanation), end="", file=sys.stderr, flush=True)
    return default, chosen, changes


def main() -> None:
    """Print one line for each dataset, and on how many the autopilot was better."""
    torch.set_num_threads(1)
    names = [name for name in sys.argv[1:] if name in REAL_SETS] or list(REAL_SETS)
    won = lower = 0
    print(
        f"autopilot within {JOBS} jobs against the default spec: test accuracy (R2 of numbers), test loss", flush=True
    )
    for name in names:
        started = time.perf_counter()
        default, chosen, changes = compare_on(name)
        before, after = (tuple(map(mean, zip(*metrics, strict=True))) for metrics in (default, chosen))
        won, lower = won + (after[0] > before[0]), lower + (after[1] < before[1])
        print(
            f"  {name:20} {before[0]:8.4f} -> {after[0]:.4f}   loss {before[1]:8.4f} -> {after[1]:.4f}   "
            f"{len(changes)} seed(s), {time.perf_counter() - started:.0f} s: {'; '.join(changes)}",
            flush=True,
        )
    print(f"  better than the default on {won} of {len(names)}, with a lower test loss on {lower}")


if __name__ == "__main__":
    main()
