"""Parameters of the maps in `calibration.py`: intercept, slope, and factor of the rival.

Written by `python -m benchmarks diagnosis --calibrate`:
date 2026-11-30T18:45:08+00:00.
commit 04501c97c3ff.
seeds 211:250.
"""

VERDICT = (1.1893, 0.9272, 2.8521)
"""16 of 18 were right."""
HEALTHY = (-0.1548, 0.8676, 0.0)
"""3 of 3 were right."""
