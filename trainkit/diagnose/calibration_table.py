"""Parameters of the maps in `calibration.py`: intercept, slope, and factor of the rival.

Written by `python -m benchmarks diagnosis --calibrate`:
date 2026-11-30T19:14:32+00:00.
commit 592b1d362162.
seeds 211:260.
"""

VERDICT = (1.2677, 0.9437, 2.8631)
"""20 of 22 were right."""
HEALTHY = (-0.0868, 0.8927, 0.0)
"""4 of 4 were right."""
INVESTIGATED = (0.0, 1.0, 0.0)
"""Not fitted yet: the score itself."""
