"""Parameters of the maps in `calibration.py`: intercept, slope, and factor of the rival.

Written by `python -m benchmarks diagnosis --calibrate`, with the number of verdicts that each was fitted on.
"""

VERDICT = (1.2677, 0.9437, 2.8631)
"""20 of 22 were right;
date 2026-11-30T19:14:32+00:00; commit 592b1d362162; seeds 211:260."""
HEALTHY = (-0.0868, 0.8927, 0.0)
"""4 of 4 were right;
date 2026-11-30T19:14:32+00:00; commit 592b1d362162; seeds 211:260."""
INVESTIGATED = (0.8513, 0.4328, 0.0)
"""18 of 20 were right;
date 2026-11-30T23:04:30+00:00; commit 8f3bbdf55ba7-dirty; seeds 211:237; seconds of investigation 60.0."""
