"""How good a run is: the validation metric of the weights that it keeps, against chance and what is attainable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from trainkit.diagnose.attainable import Attainable
from trainkit.diagnose.estimates import Z95, kept_metrics, standard_error, wilson_interval
from trainkit.diagnose.record import Record

CLOSE_SHARE = 0.9
"""Share of what is attainable beyond chance from which on a run comes close to it."""
VISIBLE_SHARE = 0.3
"""A loss of this share of what is attainable beyond chance must exceed the standard errors, else the part is too small."""
MATERIAL_SHARE = 0.02
"""Share of what is attainable beyond chance whose loss matters."""
HIGH_SKILL_ALONE = 0.7
"""Skill that counts as high where it is not known what is attainable: the lower end of its 95 % interval."""

Attainment = Literal["close", "short", "unclear", "unknown"]


@dataclass(frozen=True, slots=True)
class Performance:
    """The metric of the kept weights on `samples` validation samples, with its 95 % interval.

    `chance` is the metric of a constant prediction: the share of the largest class, or an R^2 of 0.
    """

    metric: Literal["accuracy", "r2"]
    value: float
    low: float
    high: float
    chance: float
    samples: int
    attainable: Attainable | None

    @property
    def skill(self) -> float:
        """(value - chance) / (1 - chance): 0 is a constant prediction, 1 is perfect."""
        return (self.value - self.chance) / max(1 - self.chance, 1e-9)

    @property
    def share(self) -> float | None:
        """(value - chance) / (attainable - chance); None where the reference is no better than chance, or unknown."""
        if self.attainable is None or self.attainable.value <= self.chance:
            return None
        return (self.value - self.chance) / (self.attainable.value - self.chance)

    @property
    def attainment(self) -> Attainment:
        """Where the run stands.

        short: below the 95 % interval of what is attainable and 0.9 of it. Two models on the same samples correlate at
        about 0.5, so that their difference has about the standard error of one of them.
        close: not short, on a part where the loss of 0.3 of what is attainable would exceed the noise; unclear: not
        short on a smaller part, or where a reference is hardly better than chance.
        Where it is not known what is attainable: close with a skill whose lower end is 0.7, else unknown.
        """
        reference = self.attainable
        if reference is None:
            lower = (self.low - self.chance) / max(1 - self.chance, 1e-9)
            return "close" if lower >= HIGH_SKILL_ALONE else "unknown"
        room = reference.value - self.chance
        if self.value < min(reference.low, self.chance + CLOSE_SHARE * room):
            return "short"
        return "close" if reference.value - reference.low <= VISIBLE_SHARE * room else "unclear"

    @property
    def shortfall(self) -> float | None:
        """Probability that the run is materially short of the reference, by the normal distribution; None without one.

        P(d > 0.02 r), d the difference of the reference and the run on these samples and r what is attainable beyond
        chance. The standard error of d is that of the reference alone, as the two correlate at about 0.5.
        """
        reference = self.attainable
        if reference is None:
            return None
        room = max(reference.value - self.chance, 0.0)
        error = max((reference.high - reference.low) / (2 * Z95), 1e-9)
        z = (reference.value - self.value - MATERIAL_SHARE * room) / error
        return 0.5 * math.erfc(-z / math.sqrt(2))

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for a verdict's evidence."""
        reference = self.attainable
        found = {"metric": self.metric, "value": self.value, "low": self.low, "high": self.high, "chance": self.chance}
        if reference is None:
            return {**found, "attainable": None, "attainment": self.attainment}
        best = {
            "value": reference.value,
            "low": reference.low,
            "high": reference.high,
            "reference": reference.reference,
        }
        return {
            **found,
            "attainable": best,
            "share_of_attainable": self.share,
            "shortfall_probability": self.shortfall,
            "attainment": self.attainment,
        }


def performance(record: Record) -> Performance | None:
    """Return how good the run is; None without a finite validation metric.

    Interval: Wilson's for an accuracy, for R^2 1.96 standard errors.
    """
    name: Literal["accuracy", "r2"] = "accuracy" if record.classification else "r2"
    kept, samples = kept_metrics(record), record.parts[1]
    found = kept.get(f"val_{name}")
    if found is None or samples < 1:
        return None
    if name == "accuracy":
        low, high = wilson_interval(found.value, samples)
        counts = record.classes.values()
        chance = max(counts) / sum(counts) if sum(counts) else 0.0
    else:
        error = Z95 * standard_error("val_r2", kept)
        low, high, chance = found.value - error, found.value + error, 0.0
    reference = record.reference
    fits = reference is not None and reference.metric == name
    return Performance(name, found.value, low, high, chance, samples, reference if fits else None)


def attainment(record: Record) -> Attainment:
    """Return where the run stands; `unknown` without a finite validation metric."""
    found = performance(record)
    return "unknown" if found is None else found.attainment
