"""Registered names with their last version, and aliases with all that they have ever meant."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Audited, Base, UtcDateTime, partial_index


class RegisteredName(Base):
    """A name of a project's datasets or models. Its row is the lock of all that changes under the name.

    It outlives its versions, so that no number is given twice.
    """

    __tablename__ = "registered_names"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    resource: Mapped[str] = mapped_column(String(10), primary_key=True)
    """`dataset` or `model`."""
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    last_version: Mapped[int]


class AliasAssignment(Base):
    """What an alias has meant from `created_at` to `ended_at`; the row without an end is in force."""

    __tablename__ = "alias_assignments"
    audited = Audited("alias", omitted=frozenset({"created_by", "ended_by", "ended_at"}))
    __table_args__ = (
        Index("alias_assignments_by_name", "project_id", "resource", "name", "id"),
        partial_index(
            "aliases_in_force", "project_id", "resource", "name", "alias", where="ended_at IS NULL", unique=True
        ),
        partial_index("aliases_of_target", "target_id", where="ended_at IS NULL"),
    )
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    resource: Mapped[str] = mapped_column(String(10))
    name: Mapped[str] = mapped_column(String(200))
    alias: Mapped[str] = mapped_column(String(64))
    target_id: Mapped[str] = mapped_column(String(40))
    """The dataset or model, which may be deleted once the alias means another."""
    version: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(String(200))
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_by: Mapped[str | None] = mapped_column(String(200))
