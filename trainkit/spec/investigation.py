"""Diagnosis in a job spec: whether a run that went wrong is investigated, and the job that investigates one."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from trainkit.spec.base import SpecModel

MIN_SECONDS, MAX_SECONDS = 1.0, 86_400.0
MAX_VARIANTS = 200
DEFAULT_SECONDS, LEAST_DEFAULT_SECONDS = 60.0, 10.0
DEFAULT_RUNS = 3.0

Seconds = Annotated[float, Field(ge=MIN_SECONDS, le=MAX_SECONDS)]
Variants = Annotated[int, Field(ge=1, le=MAX_VARIANTS)]


class DiagnoseSpec(SpecModel):
    """What the service does about a fault of the run."""

    investigate: Literal["auto", "off"] = "off"
    """auto: when the run has ended and its diagnosis is not `healthy`, short controlled runs with one change each look for
    the cause. They are one job of their own, with the default budget, and count as every job of the project."""


class InvestigationSpec(SpecModel):
    """The run that a job investigates. `POST /v1/jobs/{id}/diagnosis:investigate` writes this section; clients may not."""

    job: str = Field(pattern=r"^job_[0-9A-Za-z]{1,36}$")
    """The job that is investigated."""
    seconds: Seconds | None = None
    """Time for all runs together."""
    jobs: Variants | None = None
    """Number of runs."""


def default_seconds(trained_seconds: float) -> float:
    """Return the budget of an investigation that names none: min(60, max(10, 3 t)), t being the run's own seconds."""
    return round(min(DEFAULT_SECONDS, max(LEAST_DEFAULT_SECONDS, DEFAULT_RUNS * trained_seconds)), 1)


def variant_file(variant: str) -> str:
    """Return the name of the file with a variant's trained weights, among the files of the investigation."""
    return f"variant-{re.sub(r'[^A-Za-z0-9_-]', '-', variant)}.safetensors"
