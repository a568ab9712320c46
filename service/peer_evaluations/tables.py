"""What the jobs of a group are compared by: a short row an evaluation, in the order in which all became known."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Base, Json


class PeerGroup(Base):
    """Counts the changes of a group's evaluations.

    Whoever changes them holds this row until the commit, so that the count's order is the order of the commits: what
    was known at a count is what stands before it.
    """

    __tablename__ = "peer_groups"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    group_name: Mapped[str] = mapped_column(String(200), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)


class PeerGroupMember(Base):
    """A job that has been evaluated. It outlives the job, for decisions of others rest on it (see `service.leave`)."""

    __tablename__ = "peer_group_members"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    group_name: Mapped[str] = mapped_column(String(200), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(40), primary_key=True)


class PeerEvaluation(Base):
    """One evaluation of a job, `seq` being its row `train seconds` in the log."""

    __tablename__ = "peer_evaluations"
    __table_args__ = (Index("peer_evaluations_by_epoch", "job_id", "epoch", "seq"),)
    job_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    step: Mapped[int] = mapped_column(BigInteger)
    epoch: Mapped[int]
    valid_from: Mapped[int] = mapped_column(BigInteger)
    """When it became known, by the group's version."""
    superseded_at: Mapped[int | None] = mapped_column(BigInteger)
    """When it stopped counting: its steps were to be run again, or its job was deleted."""
    running_stats: Mapped[dict[str, Any]] = mapped_column(Json)
    """`{val_loss: [value, count, sum, best], ...}` up to here; a number that JSON has not is a text."""
