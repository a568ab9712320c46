"""Parameters of the maps in `calibration.py`: intercept, slope, and factor of the rival.

Written by `python -m benchmarks diagnosis --calibrate`, with the number of verdicts that each was fitted on.
"""

VERDICT = (1.9532, 0.2548, 3.846)
"""71 of 85 were right;
date 2026-12-01T00:05:01+00:00; commit 08402ec09fbe; seeds 211:237,1016:1176."""
HEALTHY = (1.3448, 0.8597, 0.0)
"""26 of 26 were right;
date 2026-12-01T00:05:01+00:00; commit 08402ec09fbe; seeds 211:237,1016:1176."""
INVESTIGATED = (1.3399, 0.3658, 0.0)
"""81 of 88 were right;
date 2026-12-01T04:00:45+00:00; commit c58da6eda561; seeds 1200:1300; seconds of investigation 60.0."""
