"""Wire format of a diagnosis."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from trainkit.diagnose.verdicts import Code


class VerdictOut(BaseModel):
    """What is wrong. `evidence` holds the numbers, thresholds, `series` to plot and `explained_by`: causes among the
    other verdicts."""

    code: Code
    confidence: float
    """Between 0 and 1, from the size of the effect."""
    since_epoch: int | None
    """Null where it does not begin with an epoch, as with the dataset's own faults."""
    message: str
    evidence: dict[str, Any]
    plot: str
    """Where the evidence is drawn (PNG)."""


class Expected(BaseModel):
    """What should come of it."""

    metric: str
    direction: str
    size: str
    source: str


class RecommendedSpecOut(BaseModel):
    """A spec to try next: a JSON merge patch, and the whole spec with it."""

    patch: dict[str, Any]
    spec: dict[str, Any]
    why: str
    expected: Expected
    code: Code
    """The verdict that it answers."""


class DiagnosisOut(BaseModel):
    """Verdicts, the main one first: `healthy` when nothing is wrong. `final` when the job has ended."""

    final: bool
    verdicts: list[VerdictOut]
    recommendations: list[RecommendedSpecOut]
