"""Workers that have said they are alive, and whose turn housekeeping is."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Base, Json, UtcDateTime


class Worker(Base):
    """One Celery parent; `seen_at` is renewed every few seconds."""

    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    host: Mapped[str] = mapped_column(String(200))
    pid: Mapped[int]
    queues: Mapped[list[Any]] = mapped_column(Json)
    slots: Mapped[int]
    device: Mapped[str] = mapped_column(String(40))
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Of the host or the control group."""
    accelerator_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Memory of all its accelerators together; None: it has none, or cannot say."""
    versions: Mapped[dict[str, Any]] = mapped_column(Json)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Housekeeping(Base):
    """The one worker that keeps house now; the row is its lease."""

    __tablename__ = "housekeeping"
    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(200))
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
