"""What the jobs of an experiment are compared by: a short row an evaluation, in the order in which all became known."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Base, Json


class ExperimentClock(Base):
    """Counts the changes of an experiment's evaluations.

    Whoever changes them holds this row until the commit, so that the count's order is the order of the commits: what
    was known at a count is what stands before it.
    """

    __tablename__ = "experiment_clocks"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    experiment: Mapped[str] = mapped_column(String(200), primary_key=True)
    ticks: Mapped[int] = mapped_column(BigInteger)


class ExperimentMember(Base):
    """A job that has been evaluated. It outlives the job, for decisions of others rest on it (see `service.leave`)."""

    __tablename__ = "experiment_members"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    experiment: Mapped[str] = mapped_column(String(200), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(40), primary_key=True)


class EvaluationResult(Base):
    """One evaluation of a job, `seq` being its row `train seconds` in the log."""

    __tablename__ = "evaluations"
    __table_args__ = (Index("evaluations_by_epoch", "job_id", "epoch", "seq"),)
    job_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    step: Mapped[int] = mapped_column(BigInteger)
    epoch: Mapped[int]
    tick: Mapped[int] = mapped_column(BigInteger)
    """When it became known, by the experiment's clock."""
    gone: Mapped[int | None] = mapped_column(BigInteger)
    """When it stopped counting: its steps were to be run again, or its job was deleted."""
    tallies: Mapped[dict[str, Any]] = mapped_column(Json)
    """`{val_loss: [value, count, sum, best], ...}` up to here; a number that JSON has not is a text."""
