"""What the metrics of one variant say of its parts: how far its loss rose, and how well validation is known."""

from __future__ import annotations

import math

from trainkit.diagnose.estimates import Z95, wilson_interval
from trainkit.diagnose.held_out_data import LEAST_DIFFERENCE
from trainkit.diagnose.investigation_history import Tested, VariantResult
from trainkit.diagnose.record import Record


def rise_after_best(result: VariantResult) -> float | None:
    """Last less least validation loss of a run."""
    values = [v for v in result.series.get("val_loss", {}).get("value", ()) if math.isfinite(v)]
    return values[-1] - min(values) if len(values) > 1 else None


def gap_to_test(result: VariantResult, parts: tuple[int, int, int]) -> tuple[float, float] | None:
    """(how much better validation is than test, its standard error), by accuracy or R^2; None where one is missing."""
    for name in ("accuracy", "r2"):
        val, test = result.metrics.get(f"val_{name}"), result.metrics.get(f"test_{name}")
        if val is None or test is None:
            continue
        errors = (standard_error(name, result, part, n) for part, n in zip(("val", "test"), parts[1:], strict=True))
        return val - test, math.hypot(1e-3, *errors)
    return None


def standard_error(name: str, result: VariantResult, part: str, samples: int) -> float:
    """Standard error of accuracy or R^2 on a part."""
    if name == "accuracy":
        share = (result.metrics[f"{part}_accuracy"] * samples + 1) / (samples + 2)
        return math.sqrt(share * (1 - share) / max(samples, 1))
    return result.metrics.get(f"{part}_r2_se", 0.05)


def interval_width(result: VariantResult) -> float | None:
    """Half of the width of the 95 % interval of accuracy, or relative to the squared error of numbers."""
    scores = result.scores
    if scores is None or not len(scores.index):
        return None
    if scores.predicted is not None:
        low, high = wilson_interval(float(scores.correct.mean()), len(scores.index))
        return (high - low) / 2
    mean = float(scores.loss.mean())
    return Z95 * float(scores.loss.std(ddof=1)) / math.sqrt(len(scores.index)) / mean if len(scores.index) > 1 else None


def gap_closes(record: Record, tested: Tested | None) -> bool | None:
    """Return whether a random cut makes the parts alike where the shipped ones are not; None: not tried, or not clear.

    It does where test comes nearer to validation beyond noise, or validation itself becomes better. It does not where
    a difference of 0.05 is excluded.
    """
    if tested is None:
        return None
    before, after = gap_to_test(tested.before, record.parts), gap_to_test(tested.after, record.parts)
    if before is None or after is None:
        return None
    (was, was_se), (now, now_se) = before, after
    reach = Z95 * math.hypot(was_se, now_se)
    if was - now > reach or _validates_better(record, tested):
        return True
    return False if was - now + reach < LEAST_DIFFERENCE else None


def _validates_better(record: Record, tested: Tested) -> bool:
    """Whether validation is better beyond noise after a random cut: both held-out parts may differ from training."""
    name = "accuracy" if record.classification else "r2"
    was, now = (one.metrics.get(f"val_{name}") for one in (tested.before, tested.after))
    if was is None or now is None:
        return False
    error = math.hypot(*(standard_error(name, one, "val", record.parts[1]) for one in (tested.before, tested.after)))
    return now - was > max(Z95 * error, LEAST_DIFFERENCE)
