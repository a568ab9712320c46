"""The audit log: entries that wait to be sealed, the chain of those that are, and where a cut chain begins."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Base, UtcDateTime


class AuditPending(Base):
    """An entry that was committed with the write it tells of, and has no place in the chain yet."""

    __tablename__ = "audit_pending"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    document: Mapped[str] = mapped_column(Text)
    """JSON of the entry without `seq`, `created_at` and `previous_hash`."""


class AuditEntry(Base):
    """A sealed entry. `document` is the truth; the other columns are copies of its fields, to find it by.

    Triggers of the database refuse UPDATE and DELETE, but of the rows up to the newest anchor. Nothing refers to other
    tables: an entry outlives its project.
    """

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("audit_log_by_project", "project_id", "seq"),
        Index("audit_log_by_actor", "actor", "seq"),
        Index("audit_log_by_resource", "resource_id", "seq"),
        Index("audit_log_by_operation", "operation", "seq"),
        Index("audit_log_by_outcome", "outcome", "seq"),
        Index("audit_log_by_time", "created_at", "seq"),
    )
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    project_id: Mapped[str | None] = mapped_column(String(64))
    """None: it belongs to the platform, and only operators see it."""
    actor: Mapped[str] = mapped_column(String(200))
    """Kind and id, e.g. `key:ab12cd34`."""
    operation: Mapped[str | None] = mapped_column(String(100))
    outcome: Mapped[str] = mapped_column(String(20))
    resource_id: Mapped[str | None] = mapped_column(String(300))
    document: Mapped[str] = mapped_column(Text)
    """Canonical JSON of the entry, with the hash of the one before it."""
    hash: Mapped[str] = mapped_column(String(64))
    """SHA-256 of `document`."""


class AuditAnchor(Base):
    """The last entry of a part of the chain that was deleted: what follows goes on from its hash."""

    __tablename__ = "audit_anchors"
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
