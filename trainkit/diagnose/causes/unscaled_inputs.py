"""Unscaled inputs: features of very different or very large size."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from trainkit.diagnose.cause import Cause, Intervention
from trainkit.diagnose.interventions import batch_norm, rate_tenth
from trainkit.diagnose.record import Record
from trainkit.diagnose.spec_changes import Change, scaled_patch
from trainkit.diagnose.verdicts import IDLE, LOW_LEARNING, Verdict, graded_confidence
from trainkit.spec.facts import IMAGE_KINDS, column_steps, feature_columns

SCALING = ("z_score", "min_max", "whiten")
LARGE_RMS = 30.0
"""Root mean square (RMS) of an input: He and Xavier initialization assume 1."""
UNEVEN_RMS = 100.0
"""Largest over median RMS of the inputs; its square is the condition number of the first layer (LeCun 1998)."""


def evidence(record: Record) -> Verdict | None:
    """Unscaled inputs: no z_score, min_max or whiten, and the largest RMS of a feature is >= 30 or >= 100 times the median.

    Pixels are always scaled to [0, 1]; of a multimodal model the columns are looked at.
    """
    if any(step.kind in SCALING for step in column_steps(record.spec)):
        return None
    sizes = _root_mean_squares(record)
    if not sizes:
        return None
    largest, typical = max(sizes.values()), float(np.median(list(sizes.values())))
    uneven = largest / typical if typical > 0 else 1.0
    if largest < LARGE_RMS and uneven < UNEVEN_RMS:
        return None
    strength = max(math.log10(largest / LARGE_RMS), math.log10(uneven / UNEVEN_RMS))
    learnt, loss, scale = record.final_skill, record.get("train_loss"), record.scale
    first = float(loss.value[0]) / scale if scale and len(loss) else None
    # a network with high skill was not hurt much
    harmless = learnt is not None and learnt > 0.8 and first is not None and first < 1
    top = sorted(sizes, key=lambda name: -sizes[name])[:5]
    return Verdict(
        "unscaled_inputs",
        0.4 if harmless else graded_confidence(strength, 0, 1.5, 0.65),
        1 if len(loss) else None,
        f"The inputs are not scaled: the largest ({top[0]}) has an RMS of {largest:.3g}, the median is {typical:.3g}.",
        {
            "largest_rms": largest,
            "median_rms": typical,
            "thresholds": {"rms": LARGE_RMS, "largest_over_median": UNEVEN_RMS},
            "largest_features": {name: sizes[name] for name in top},
            "first_loss_over_baseline": first,
            "skill": learnt,
            "series": ["train_batch_loss", "train_loss", "train_grad_norm"],
        },
    )


def _root_mean_squares(record: Record) -> dict[str, float]:
    """Return the RMS of each input by name, sqrt(mean^2 + std^2), from the dataset report."""
    statistics = record.report.get("column_statistics") or {}
    of_images = record.facts.input_dtype == "uint8" or record.facts.kind in IMAGE_KINDS
    if of_images and record.spec.model.kind != "multimodal":
        return {}  # pixels are scaled to [0, 1]
    if statistics:
        names = [column.name for column in feature_columns(record.spec, record.facts) if column.type == "numeric"]
        sizes = {
            n: math.hypot(statistics[n].get("mean", 0), statistics[n].get("std", 0)) for n in names if n in statistics
        }
    else:
        listed = record.report.get("feature_statistics") or {}
        sizes = {
            f"feature {i}": float(rms) for i, rms in zip(listed.get("index", ()), listed.get("rms", ()), strict=True)
        }
    return {name: value for name, value in sizes.items() if value > 0 and math.isfinite(value)}


def suspicion(record: Record) -> float:
    """No scaling, and an RMS of 5 or more or ten times the median; a third of what counts as evidence."""
    if any(step.kind in SCALING for step in column_steps(record.spec)) or not (sizes := _root_mean_squares(record)):
        return 0.0
    largest, typical = max(sizes.values()), float(np.median(list(sizes.values())))
    return 0.5 if largest >= LARGE_RMS / 6 or (typical > 0 and largest / typical >= UNEVEN_RMS / 10) else 0.1


def observable(record: Record) -> bool:
    return bool(_root_mean_squares(record))


def recommendations(record: Record) -> Iterator[Change]:
    expected = (
        "train_loss",
        "down",
        "from near the loss of a constant prediction at the start, at the same learning rate",
        "LeCun et al. 1998",
    )
    yield Change(scaled_patch(record), "z_score gives every input mean 0 and standard deviation 1.", expected)
    squeezed = {
        field: [{"kind": "min_max", "range": [-1.0, 1.0]} if step["kind"] == "z_score" else step for step in steps]
        for field, steps in scaled_patch(record).items()
    }
    yield Change(squeezed, "min_max scales every input to the range from -1 to 1.", expected)


def interventions(record: Record) -> Iterator[Intervention]:
    code = "unscaled_inputs"
    if any(step.kind in SCALING for step in column_steps(record.spec)):
        return
    sizes = sorted(_root_mean_squares(record).values())
    unusual = bool(sizes) and sizes[-1] >= min(0.3 * LARGE_RMS, 0.3 * UNEVEN_RMS * max(sizes[len(sizes) // 2], 1e-12))
    why = "z_score gives every input mean 0 and standard deviation 1."
    yield Intervention("standardised_inputs", code, scaled_patch(record), "val_loss", why, 0.9, unusual)
    yield from batch_norm(record, code, 0.4)
    yield rate_tenth(record, code, 0.3)


CAUSE = Cause(
    code="unscaled_inputs",
    interventions=interventions,
    evidence=evidence,
    recommendations=recommendations,
    suspicion=suspicion,
    observable=observable,
    words="The inputs differ in size and are not scaled.",
    explains=LOW_LEARNING | IDLE | {"exploding_gradients", "learning_rate_too_high", "wrong_loss"},
)
