"""Wire format of a diagnosis."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import WithJsonSchema

from service.diagnosis.investigation_schemas import EffectOut, HarmfulOut, InvestigationOut
from service.response_model import JsonObject, ResponseModel, SpecDocument, StoredDocument
from trainkit.diagnose.causes import CODES

VerdictCode = Annotated[
    str, WithJsonSchema({"type": "string", "description": f"One of {', '.join(CODES)}; new ones may come."})
]
"""Code of a verdict: an open list, because a new cause must not break generated clients."""


class VerdictOut(ResponseModel):
    """What is wrong. `evidence` holds the numbers, thresholds, `series` to plot and `explained_by`: causes among the
    other verdicts."""

    code: VerdictCode
    confidence: float
    """From the size of the effect; at least 0.5 for a fault. Not calibrated: a rank, no probability."""
    since_epoch: int | None
    """Null where it does not begin with an epoch, as with the dataset's own faults."""
    message: str
    evidence: JsonObject
    source: Literal["record", "investigation"]
    """`investigation`: measured by runs with one change each, which `evidence.runs` names; `record`: seen in the run's own
    log."""
    plot: str
    """Where the evidence is drawn (PNG)."""


class Expected(StoredDocument):
    """What should come of it."""

    metric: str = ""
    direction: str = ""
    size: str = ""
    source: str = ""


class RecommendedSpecOut(ResponseModel):
    """A spec to try next: a JSON merge patch, and the whole spec with it."""

    patch: JsonObject
    spec: SpecDocument
    why: str
    expected: Expected
    code: VerdictCode
    """The verdict that it answers."""
    measured: EffectOut | None
    """What the change did in an investigation; null for one that was not tried."""


class SuspectOut(ResponseModel):
    """A cause that is possible and that the record does not show."""

    code: VerdictCode
    suspicion: float
    """Between 0 and 1: how much it is worth an experiment."""
    why: str
    settled_by: list[str] = []
    """Names of the controlled changes whose runs would tell."""


class DiagnosisOut(ResponseModel):
    """Verdicts, the main one first: `healthy` when nothing is wrong and the run could have shown it, `inconclusive` when
    the record does not tell. `final` when the job has ended."""

    final: bool
    verdicts: list[VerdictOut]
    suspects: list[SuspectOut]
    """The likeliest first."""
    recommendations: list[RecommendedSpecOut]
    """Those that an investigation measured come first."""
    harmful: list[HarmfulOut]
    """Changes that made the run worse when an investigation tried them."""
    investigation: InvestigationOut | None
    active_investigation: str | None
    """The id of an investigation that has not ended."""
