"""The metric log: columnar chunks, and which of their rows were run again."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Base


class MetricChunk(Base):
    """Rows first_seq..last_seq of a job's log in one columnar body (see chunks.py)."""

    __tablename__ = "metric_chunks"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    first_seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    last_seq: Mapped[int] = mapped_column(BigInteger)
    fence: Mapped[int]
    body: Mapped[bytes] = mapped_column(LargeBinary)


class MetricSuperseded(Base):
    """Rows first_seq..last_seq belong to steps that a later attempt ran again."""

    __tablename__ = "metric_superseded"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    first_seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    last_seq: Mapped[int] = mapped_column(BigInteger)
    fence: Mapped[int]
