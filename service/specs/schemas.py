"""Wire format of a checked spec."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class WarningOut(BaseModel):
    """Something that is allowed, and probably not meant."""

    pointer: str
    code: str
    message: str
    hint: str = ""


class EstimateOut(BaseModel):
    """What the job would need."""

    model_config = ConfigDict(extra="allow")
    parameters: int
    memory_bytes: int
    seconds: float | None = None


class ValidOut(BaseModel):
    """The spec with everything filled in. A spec that is not valid is answered with a 422 problem, all errors in it."""

    valid: Literal[True] = True
    spec: dict[str, Any]
    warnings: list[WarningOut]
    estimate: EstimateOut | None
