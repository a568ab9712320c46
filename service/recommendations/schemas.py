"""Wire format of recommendations: submitting one, its effect, and the scorecard."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from service.diagnosis.schemas import Expected, VerdictCode
from service.recommendations.effect import Outcome
from service.request_model import RequestModel
from service.response_model import JsonObject, ResponseModel, StoredDocument


class DiagnosisRef(RequestModel):
    """One of the `recommendations` in the diagnosis of an ended job."""

    job: str
    index: int = Field(0, ge=0)


class FromDiagnosisIn(RequestModel):
    """A job from a diagnosis: `recommendations[index].spec`, with another name and other labels if given."""

    from_diagnosis: DiagnosisRef
    name: str | None = Field(None, max_length=200)
    labels: dict[str, str] | None = Field(None, max_length=32)


class BestValue(ResponseModel):
    """The best value of a run's evaluations, with the standard error logged there."""

    value: float
    se: float | None
    epoch: int


class ComparisonBasis(StoredDocument):
    """The metric that is compared, and the source job's best of it; `metric` is null where nothing can be compared."""

    metric: str | None = None
    direction: str | None = None
    reason: str | None = None
    before: BestValue | None = None
    expected_before: float | None = None
    """The source job's best of the metric that was expected to move, where the job's row has it."""


class Measured(StoredDocument):
    """The measured effect. `gain` is above 0 where the metric got better; `improved`: by more than `noise`."""

    outcome: Outcome = "not_comparable"
    improved: bool | None = None
    """Null where nothing could be compared."""
    reason: str | None = None
    after: BestValue | None = None
    gain: float | None = None
    noise: float | None = None
    """sqrt(se_before^2 + se_after^2)."""
    expected_after: float | None = None


class RecommendationOut(ResponseModel):
    """What the diagnosis recommended, what it expected and, once the job has ended, the measured effect."""

    job: str
    source: str
    """The job that was diagnosed; it may have been deleted since."""
    code: VerdictCode
    ruleset_version: int
    patch: JsonObject
    expected: Expected
    compared: ComparisonBasis
    measured: Measured | None


class OutcomeCounts(ResponseModel):
    """Recommendations by outcome. Hit rate: improved / (improved + within_noise + worse), with Wilson's 95 % interval."""

    recommendations: int
    ended: int
    improved: int
    within_noise: int
    worse: int
    not_comparable: int
    no_result: int
    hit_rate: float | None
    hit_rate_interval: Annotated[list[float], Field(min_length=2, max_length=2)] | None


class RulesetOut(ResponseModel):
    """Outcomes of the recommendations of one version of the ruleset."""

    ruleset_version: int
    all: OutcomeCounts
    codes: dict[VerdictCode, OutcomeCounts]


class ScorecardOut(ResponseModel):
    """Outcomes of the project's recommendations, in all and by version of the ruleset, the newest first."""

    all: OutcomeCounts
    rulesets: list[RulesetOut]
