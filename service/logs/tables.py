"""The log of a job's attempts: a row a flush."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Base


class LogChunk(Base):
    """Lines first_seq..last_seq of a job's log in one body (see chunks.py)."""

    __tablename__ = "log_chunks"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    first_seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    last_seq: Mapped[int] = mapped_column(BigInteger)
    fence: Mapped[int]
    max_level: Mapped[int]
    """The highest level in it, as its place in `LEVELS`: readers of warnings pass the rest over."""
    body: Mapped[bytes] = mapped_column(LargeBinary)
