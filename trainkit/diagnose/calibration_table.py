"""Parameters of the maps in `calibration.py`: intercept, slope, and factor of the rival.

Written by `python -m benchmarks diagnosis --calibrate`, with the number of verdicts that each was fitted on.
"""

VERDICT = (1.939, 0.3811, 4.4773)
"""171 of 204 were right;
date 2026-12-01T07:05:31+00:00; commit 01a552bdf41f; seeds 211:300,1016:1344."""
HEALTHY = (1.0067, 0.5663, 0.0)
"""54 of 60 were right;
date 2026-12-01T07:05:31+00:00; commit 01a552bdf41f; seeds 211:300,1016:1344."""
INVESTIGATED = (0.5416, 0.81, 0.0)
"""148 of 161 were right;
date 2026-12-01T08:02:41+00:00; commit 0c5fe2696227-dirty; seeds 1344:1544; seconds of investigation 60.0."""
