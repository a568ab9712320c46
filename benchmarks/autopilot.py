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
"""Below so many samples a set is tried with these seeds, above with the first alone."""


def test_figures(run: DiagnosedRun | None) -> tuple[float, float]:
    """(accuracy or R^2, loss) of the test part; of no model those of the worst."""
    if run is None or run.result is None or run.result.evaluation is None:
        return float("-inf"), float("inf")
    test = run.result.evaluation["parts"]["test"]
    return test["accuracy" if "accuracy" in test else "r2"], test["loss"]


def compared(name: str) -> tuple[list[tuple[float, float]], list[tuple[float, float]], list[str]]:
    """(figures of the default, figures of the chosen, how the chosen came about), one a seed."""
    data = REAL_SETS[name].load(ROOT / ".cache/data")
    default, chosen, ways = [], [], []
    for seed in SEEDS if data.facts.samples < FEW else SEEDS[:1]:
        made = tk.autopilot(base_spec(name, seed), data, jobs=JOBS)
        default.append(test_figures(made.runs[0]))
        chosen.append(test_figures(made.best))
        way, at = [], made.done.best
        while at is not None:
            way.append(made.tried[at].step.code)
            at = made.tried[at].step.source
        ways.append(" + ".join(reversed([code for code in way if code])) or "the default")
        print("".join(f"    {entry['text']}\n" for entry in made.explanation), end="", file=sys.stderr, flush=True)
    return default, chosen, ways


def main() -> None:
    """One line a dataset, and how many were won."""
    torch.set_num_threads(1)
    names = [name for name in sys.argv[1:] if name in REAL_SETS] or list(REAL_SETS)
    won = lower = 0
    print(
        f"autopilot within {JOBS} jobs against the default spec: test accuracy (R2 of numbers), test loss", flush=True
    )
    for name in names:
        began = time.perf_counter()
        default, chosen, ways = compared(name)
        before, after = (tuple(map(mean, zip(*figures, strict=True))) for figures in (default, chosen))
        won, lower = won + (after[0] > before[0]), lower + (after[1] < before[1])
        print(
            f"  {name:20} {before[0]:8.4f} -> {after[0]:.4f}   loss {before[1]:8.4f} -> {after[1]:.4f}   "
            f"{len(ways)} seed(s), {time.perf_counter() - began:.0f} s: {'; '.join(ways)}",
            flush=True,
        )
    print(f"  better than the default on {won} of {len(names)}, with a lower test loss on {lower}")


if __name__ == "__main__":
    main()
