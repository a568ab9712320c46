"""Recommendations that jobs were made from: what was expected of each, and the measured effect."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Base, Json, UtcDateTime, partial_index


class Recommendation(Base):
    """A job made from a diagnosis. The row outlives both jobs, for the scorecard counts it."""

    __tablename__ = "recommendations"
    __table_args__ = (
        Index("recommendations_by_code", "project_id", "ruleset_version", "code", "outcome"),
        partial_index("recommendations_unmeasured", "project_id", where="outcome IS NULL"),
    )
    job_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    source_job: Mapped[str] = mapped_column(String(40))
    code: Mapped[str] = mapped_column(String(40))
    """The verdict that the job answers."""
    ruleset_version: Mapped[int]
    """Of the rules that gave the verdict."""
    patch: Mapped[dict[str, Any]] = mapped_column(Json)
    expected: Mapped[dict[str, Any]] = mapped_column(Json)
    """`{metric, direction, size, source}` as in the diagnosis."""
    compared: Mapped[dict[str, Any]] = mapped_column(Json)
    """`{metric, direction, reason, before, expected_before}`: what is compared, with the source job's value."""
    outcome: Mapped[str | None] = mapped_column(String(20))
    """Null until it is measured."""
    measured: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """`{outcome, reason, after, gain, noise, expected_after}`, stored when it is measured first."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
