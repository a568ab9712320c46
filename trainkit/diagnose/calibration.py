"""Confidence as a probability: maps from the scores of the rules to how often these were right on generated runs.

    p = 1 / (1 + exp(-(a + b logit(score) - c rival)))

after Platt (1999): `a`, `b` and `c` are fitted on runs apart from those of development. `python -m benchmarks diagnosis
--calibrate` writes them into `calibration_table.py`, with its date and commit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainkit.diagnose.calibration_table import HEALTHY, INVESTIGATED, VERDICT

LEAST, MOST = 0.02, 0.98
"""Scores beyond these count as these; a probability of 0 or 1 is never given."""


@dataclass(frozen=True, slots=True)
class PlattScaling:
    """Parameters of a map: `intercept` a, `slope` b and `rival` c."""

    intercept: float
    slope: float
    rival: float = 0.0

    def probability(self, score: float, rival: float = 0.0) -> float:
        """Return the probability that a verdict with this score is right, three digits.

        rival: the suspicion of the likeliest other cause that would leave the same evidence.
        """
        z = self.intercept + self.slope * logit(score) - self.rival * rival
        return round(min(MOST, max(LEAST, 1 / (1 + math.exp(-z)))), 3)


def logit(score: float) -> float:
    """Return ln(p / (1 - p)) of a score that is cut to [LEAST, MOST]."""
    p = min(MOST, max(LEAST, score))
    return math.log(p / (1 - p))


OF_VERDICTS, OF_HEALTHY, OF_INVESTIGATIONS = (PlattScaling(*one) for one in (VERDICT, HEALTHY, INVESTIGATED))
"""Of the record's verdict on a cause, of its `healthy`, and of what an investigation says, `healthy` among it."""
