"""Parameters of the maps in `calibration.py`: intercept, slope, and factor of the rival.

Written by `python -m benchmarks diagnosis --calibrate`:
date 2026-11-30T18:41:18+00:00.
commit 51db7695d29e.
seeds 211:250.
"""

VERDICT = (1.2081, 0.9903, 2.7989)
"""16 of 18 were right."""
HEALTHY = (-0.1548, 0.8676, 0.0)
"""3 of 3 were right."""
