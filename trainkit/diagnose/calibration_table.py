"""Parameters of the maps in `calibration.py`: intercept, slope, and factor of the rival.

Written by `python -m benchmarks diagnosis --calibrate`, with the number of verdicts that each was fitted on.
"""

VERDICT = (1.9532, 0.2548, 3.846)
"""71 of 85 were right;
date 2026-12-01T00:05:01+00:00; commit 08402ec09fbe; seeds 211:237,1016:1176."""
HEALTHY = (1.3448, 0.8597, 0.0)
"""26 of 26 were right;
date 2026-12-01T00:05:01+00:00; commit 08402ec09fbe; seeds 211:237,1016:1176."""
INVESTIGATED = (0.8513, 0.4328, 0.0)
"""18 of 20 were right;
date 2026-11-30T23:04:30+00:00; commit 8f3bbdf55ba7-dirty; seeds 211:237; seconds of investigation 60.0."""
