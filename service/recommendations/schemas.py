"""Wire format of prescriptions: asking for one, its effect, and the scorecard."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.diagnosis.schemas import Expected
from service.recommendations.effect import Outcome
from trainkit.diagnose.verdicts import Code


class DiagnosisRef(BaseModel):
    """A place in `recommendations` of the diagnosis of an ended job."""

    model_config = ConfigDict(extra="forbid", strict=True)
    job: str
    index: int = Field(0, ge=0)


class FromDiagnosisIn(BaseModel):
    """A job out of a diagnosis: `recommendations[index].spec`, with another name and other labels if given."""

    model_config = ConfigDict(extra="forbid")
    from_diagnosis: DiagnosisRef
    name: str | None = Field(None, max_length=200)
    labels: dict[str, str] | None = Field(None, max_length=32)


class Best(BaseModel):
    """The best value of a run's evaluations, with the standard error logged there."""

    value: float
    se: float | None
    epoch: int


class Compared(BaseModel):
    """What the effect is told by, and the source job's best of it. `metric` is null where nothing can be compared."""

    metric: str | None
    direction: str | None
    reason: str | None
    before: Best | None
    expected_before: float | None
    """The source job's best of the metric that was expected to move, where the job's row has it."""


class Measured(BaseModel):
    """What came of it. `gain` is above 0 where the metric got better; `improved`: by more than `noise`."""

    outcome: Outcome
    improved: bool | None
    """Null where nothing could be compared."""
    reason: str | None
    after: Best | None
    gain: float | None
    noise: float | None
    """sqrt(se_before^2 + se_after^2)."""
    expected_after: float | None


class PrescriptionOut(BaseModel):
    """Why the job was made, what was expected of it and, once it has ended, what came of it."""

    job: str
    source: str
    """The job that was diagnosed; it may have been deleted since."""
    code: Code
    edition: int
    patch: dict[str, Any]
    expected: Expected
    compared: Compared
    measured: Measured | None


class Tally(BaseModel):
    """How prescriptions fared. Hit rate: improved / (improved + within_noise + worse), with Wilson's 95 % interval."""

    prescriptions: int
    ended: int
    improved: int
    within_noise: int
    worse: int
    not_comparable: int
    no_result: int
    hit_rate: float | None
    hit_rate_interval: tuple[float, float] | None


class EditionOut(BaseModel):
    """What one edition of the rules prescribed."""

    edition: int
    all: Tally
    codes: dict[Code, Tally]


class ScorecardOut(BaseModel):
    """How the project's prescriptions fared, in all and by edition of the rules, the newest first."""

    all: Tally
    editions: list[EditionOut]
