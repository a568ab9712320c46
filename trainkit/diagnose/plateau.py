"""Plateaus of training: little learnt and no gain any more, lost in depth, held back by dropout."""

from __future__ import annotations

import numpy as np

from trainkit.diagnose.capacity import dropout_dominates, too_deep
from trainkit.diagnose.performance import attainment
from trainkit.diagnose.record import LOW_SKILL, NO_SKILL, Record
from trainkit.diagnose.trends import MIN_EVALUATIONS

DEEP_PLATEAU_SKILL = 0.75
"""A network of 20 or more plain layers with a plateau below this skill is too deep to train."""
PLATEAU_GAIN = 0.02
"""Gain of the last quarter of the evaluations, as a share of the baseline loss, below which training is on a plateau."""
SANITY_CHECK_SERIES = ("sanity_check_small_model_loss", "sanity_check_first_batch_loss")


def low_skill_plateau(record: Record) -> tuple[float, int] | None:
    """Return (skill, first epoch of the plateau) for a skill below 0.5 on a plateau, or below 0.1; else None."""
    loss, learnt, scale = record.get("train_loss"), record.final_skill, record.scale
    if len(loss) < MIN_EVALUATIONS or learnt is None or learnt >= LOW_SKILL or not scale:
        return None
    if not is_plateau(record) and learnt >= NO_SKILL:
        return None
    near = np.flatnonzero(np.abs(loss.value - loss.value[-1]) <= PLATEAU_GAIN * scale)
    return learnt, int(loss.epoch[near[0]])


def is_plateau(record: Record) -> bool:
    """Return whether the training loss gained at most 0.02 of the baseline in the last quarter of the evaluations."""
    loss, scale = record.get("train_loss"), record.scale
    if len(loss) < MIN_EVALUATIONS or not scale:
        return False
    start = len(loss) - 1 - max(1, len(loss) // 4)
    # medians at both ends, so that a single good epoch is no gain
    gained = float(np.median(loss.value[max(0, start - 1) : start + 2])) - float(np.median(loss.value[-2:]))
    return gained <= PLATEAU_GAIN * scale


def lost_in_depth(record: Record) -> bool:
    """Return whether an ended run of 20 or more plain layers learnt next to nothing.

    One of: no finite loss; a skill below 0.5 (0.75 on a plateau, or where a reference model attains more); a skill below
    0.1 for half of the evaluations.
    """
    if not (too_deep(record) and record.final):
        return False
    learnt, skill = record.final_skill, record.skill("train")
    short = record.reference is not None and attainment(record) == "short"
    limit = DEEP_PLATEAU_SKILL if short or is_plateau(record) else LOW_SKILL
    late = len(skill) >= MIN_EVALUATIONS and float(np.median(skill)) < NO_SKILL
    return learnt is None or learnt < limit or late


def held_back_by_dropout(record: Record) -> tuple[float, int] | None:
    """Return (training skill, first epoch) where dropout dominates the training loss and the skill is below 0.5."""
    skill = record.skill("train")
    if not dropout_dominates(record) or not len(skill) or skill[-1] >= LOW_SKILL:
        return None
    return float(skill[-1]), int(record.get("train_loss").epoch[0])
