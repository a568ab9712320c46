"""Notes that people and agents leave on a group of jobs."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Audited, Base, UtcDateTime


class Note(Base):
    """A note on a group of jobs, or on an experiment, whose jobs have its id as their group. Never changed."""

    __tablename__ = "notes"
    audited = Audited("note")
    __table_args__ = (Index("notes_by_group", "project_id", "group_name", "id"),)
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    group_name: Mapped[str] = mapped_column(String(200))
    actor: Mapped[str] = mapped_column(String(200))
    text: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
