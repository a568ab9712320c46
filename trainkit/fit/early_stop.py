"""Early stopping as training asks it: the code that replays it, under its old name."""

from __future__ import annotations

from trainkit.diagnose.stopping import Decision, EarlyStopping, Evaluation, StopReason, first_stop, is_better

__all__ = ["Decision", "EarlyStopping", "Evaluation", "StopReason", "first_stop", "is_better"]
