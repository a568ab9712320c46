"""How often a column of real data looks like the target with noise, and how often one that is so is found.

python -m benchmarks.diagnosis.noisy_columns
"""

from __future__ import annotations

import numpy as np

from benchmarks.diagnosis.datasets import POOL, samples_of
from trainkit.data.noisy_target import noisy_targets

SIZES = (200, 400, 1500)
DRAWS = 8
NOISE = (0.1, 0.3, 0.5, 0.7)
SYNTHETIC = ("overlapping", "weak_linear", "friedman", "clusters")


def main() -> None:
    names = [name for name, entry in POOL.items() if entry.form == "vector" and name not in SYNTHETIC]
    columns = draws = blamed = found = 0
    for name in names:
        x, y = samples_of(name)
        columns += x.shape[1]
        for size in SIZES:
            if size == SIZES[-1] and len(y) < 600:
                continue  # the same samples as with fewer
            for draw in range(DRAWS):
                random = np.random.default_rng([size, draw, len(name), 9])
                rows = random.permutation(len(y))[:size]
                values, target = np.asarray(x[rows], np.float64), y[rows]
                target = target if target.dtype.kind == "i" else target.astype(np.float64)
                draws += 1
                blamed += len(noisy_targets(values, target))
                noise = random.choice(NOISE) * random.normal(size=len(target))
                column = (target - target.mean()) / target.std() + noise
                leaks = noisy_targets(np.concatenate([values, column[:, None]], axis=1), target)
                found += values.shape[1] in dict(leaks)
    print(f"{columns} columns of {len(names)} datasets in {draws} draws: {blamed} look like the target with noise")
    print(f"a column made so is found in {found} of {draws}")


if __name__ == "__main__":
    main()
