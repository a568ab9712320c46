"""Judging a diagnosis on a case: its verdicts, and whether its first recommendation helped.

Whether it helped is judged by the sign of the difference and by the noise (service.recommendations.effect), on the best
value of a validation metric on the same split. Where a patch changes the split, or the fault makes validation
unreliable, the metric of TRUSTED_COMPARISON is compared instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.diagnosis.cases import Case
from benchmarks.diagnosis.trial import Trial, trial
from service.recommendations import effect
from trainkit.diagnose.diagnosis import Diagnosis, diagnose
from trainkit.diagnose.estimates import wilson_interval
from trainkit.diagnose.record import Record


@dataclass(frozen=True, slots=True)
class MeasuredEffect:
    """Change of a metric: `gain` > 0 is an improvement. `noise` is None where no standard error is known, and values are
    None where a run logged nothing finite."""

    metric: str
    before: float | None
    after: float | None
    gain: float | None
    noise: float | None

    @property
    def improved(self) -> bool:
        if self.before is None:
            return self.after is not None
        return self.gain is not None and self.gain > 0

    @property
    def beyond_noise(self) -> bool | None:
        """Whether the gain exceeds the noise; None where that is unknown."""
        return None if self.noise is None or self.gain is None else self.gain > self.noise


@dataclass(frozen=True, slots=True)
class Result:
    """One case: the codes of its verdicts, the main one first, and the effect of the first recommendation."""

    name: str
    code: str
    half: str
    named: list[str]
    confidences: list[float]
    patch: Mapping[str, Any] | None
    effect: MeasuredEffect | None
    seconds: float
    cached: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        improved = (
            {} if self.effect is None else {"improved": self.effect.improved, "beyond_noise": self.effect.beyond_noise}
        )
        return {**asdict(self), **improved}


def judge_case(case: Case, seed: int = 0, *, fresh: bool = False, with_recommendation: bool = True) -> Result:
    """Train, diagnose, train the first recommendation, and compare."""
    before = trial(case.recipe, case.spec(seed), fresh=fresh)
    found = diagnose(before.record)
    comparison: MeasuredEffect | None = None
    seconds, cached = before.seconds, before.cached
    first = found.recommendations[0] if found.recommendations else None
    if first is not None and with_recommendation and case.code != "healthy":
        after = trial(case.recipe, first.spec, fresh=fresh)
        comparison = compared(case, found, before, after)
        seconds, cached = seconds + after.seconds, cached and after.cached
    return Result(
        case.name,
        case.code,
        case.half,
        [verdict.code for verdict in found.verdicts],
        [verdict.confidence for verdict in found.verdicts],
        None if first is None else dict(first.patch),
        comparison,
        seconds,
        cached,
    )


def compared(case: Case, found: Diagnosis, before: Trial, after: Trial) -> MeasuredEffect:
    """Return the effect of the first recommendation."""
    if case.code in TRUSTED_COMPARISON:
        return TRUSTED_COMPARISON[case.code](before, after)
    expected = found.recommendations[0].expected["metric"]
    old, new = _columns(before.record), _columns(after.record)
    specs = [trial.record.spec.model_dump(mode="json") for trial in (before, after)]
    basis = effect.comparison(expected, specs[0], specs[1], effect.best_values(old))
    if basis["metric"] is not None:
        outcome = effect.measured_effect(basis, after.record.state, None, effect.best_values(new))
        value = outcome["after"]["value"] if outcome["after"] else None
        return MeasuredEffect(basis["metric"], basis["before"]["value"], value, outcome["gain"], outcome["noise"])
    for name in (expected, "val_accuracy", "val_r2"):
        if name.startswith("val_") and len(before.record.get(name)) and len(after.record.get(name)):
            return _by_value(name, _kept(before.record, name), _kept(after.record, name))
    return _finite(old, new)


def _kept(record: Record, name: str) -> float:
    """That metric of the weights that are kept: those of the best `train.monitor`, else of the least validation loss."""
    monitor = record.spec.train.monitor or "val_loss"
    watched = record.get(monitor)
    if not len(watched):
        return float("nan")
    at = watched.step[watched.value.argmin() if _falls(monitor) else watched.value.argmax()]
    series = record.series[name]
    return float(series.value[series.step == at][0])


def _finite(old: effect.Columns, new: effect.Columns) -> MeasuredEffect:
    """A run that logged nothing finite is bettered by one that does."""
    was, now = (_least(series["val_loss"]["value"]) if "val_loss" in series else float("nan") for series in (old, new))
    return _by_value("val_loss", was, now)


def _by_value(name: str, was: float, now: float) -> MeasuredEffect:
    known = np.isfinite([was, now])
    gain = (was - now if _falls(name) else now - was) if known.all() else None
    return MeasuredEffect(name, was if known[0] else None, now if known[1] else None, gain, None)


def _falls(name: str) -> bool:
    return name.endswith(("loss", "mae", "mse", "interval", "aside|"))


def _least(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.min()) if len(finite) else float("nan")


def _columns(record: Record) -> dict[str, dict[str, Any]]:
    return {
        name: {"step": series.step, "epoch": series.epoch, "value": series.value}
        for name, series in record.series.items()
    }


def _width(before: Trial, after: Trial) -> MeasuredEffect:
    """Half-width of the 95 % interval of what validation says, as the rule has it; no validation part: infinitely wide."""

    def width(one: Trial) -> float:
        record = one.record
        if record.classification:
            accuracy = record.get("val_accuracy").value
            if not len(accuracy):
                return float("inf")
            low, high = wilson_interval(float(accuracy.max()), record.parts[1])
            return (high - low) / 2
        loss, errors = record.get("val_loss").value, record.get("val_loss_se").value
        return 1.96 * float(errors[loss.argmin()] / abs(loss.min())) if len(loss) else float("inf")

    was, now = width(before), width(after)
    return _by_value("width of the interval", was, now)


def _optimism(before: Trial, after: Trial) -> MeasuredEffect:
    """Return how much better the metric is on validation than on unseen samples."""

    def gap(one: Trial) -> float:
        name = "val_accuracy" if one.record.classification else "val_r2"
        values = one.record.get(name).value
        return abs(float(values.max()) - one.aside) if one.aside is not None and len(values) else float("nan")

    was, now = gap(before), gap(after)
    return _by_value("|validation - samples set aside|", was, now)


def _recall(before: Trial, after: Trial) -> MeasuredEffect:
    """Mean recall of the classes on validation, of the weights that are kept: the accuracy is what the fault flatters."""
    return _by_value("val_recall", *(_kept(one.record, "val_recall") for one in (before, after)))


def _in_the_field(before: Trial, after: Trial) -> MeasuredEffect:
    """Accuracy or R^2 on samples of the field that were set aside."""
    was, now = (float("nan") if one.aside is None else one.aside for one in (before, after))
    return _by_value("samples of the field set aside", was, now)


TRUSTED_COMPARISON: dict[str, Callable[[Trial, Trial], MeasuredEffect]] = {
    "validation_too_small": _width,
    "leakage": _optimism,
    "distribution_mismatch": _in_the_field,
    "class_imbalance": _recall,
}
"""Faults of validation itself, or of its metric: what the remedy is for, measured where it can be."""
