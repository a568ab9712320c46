"""When each project was last served by each queue, so that none is served twice while another waits."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Base, UtcDateTime


class QueueShare(Base):
    """The last claim of a project's work in a queue; a project without a row was never served there."""

    __tablename__ = "queue_shares"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    queue: Mapped[str] = mapped_column(String(40), primary_key=True)
    served_at: Mapped[datetime] = mapped_column(UtcDateTime)
