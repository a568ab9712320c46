"""API keys."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Double, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Audited, Base, UtcDateTime
from service.roles import ProjectRole

OMITTED = frozenset({"last_used_at", "last_used_from", "used_jobs", "used_compute_seconds", "reserved_compute_seconds"})


class ApiKey(Base):
    """The hash of a key; the key itself is shown once and never stored."""

    __tablename__ = "api_keys"
    __table_args__ = (Index("api_keys_by_user", "user_id"),)
    audited = Audited("key", omitted=OMITTED, secret=frozenset({"secret_hash"}))
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id"))
    """None for a key of the operator that has no role in any project."""
    name: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(String(1000), default="")
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id"))
    """Whose it is: it may never do more than that user, and ends with the user."""
    role: Mapped[ProjectRole | None] = mapped_column(String(20))
    operator: Mapped[bool] = mapped_column(default=False)
    secret_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_from: Mapped[str | None] = mapped_column(String(64))
    """Address of the client that used it last."""
    max_jobs: Mapped[int | None]
    """How many jobs it may create; None: any number. `budget.py` counts them."""
    max_compute_seconds: Mapped[float | None] = mapped_column(Double)
    """How long the attempts of these jobs may take together; None: any time."""
    used_jobs: Mapped[int] = mapped_column(default=0, server_default="0")
    used_compute_seconds: Mapped[float] = mapped_column(Double, default=0.0, server_default="0")
    """Of attempts that have ended."""
    reserved_compute_seconds: Mapped[float] = mapped_column(Double, default=0.0, server_default="0")
    """What the time limits of its jobs that have not ended may still take."""
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    @property
    def budget(self) -> ApiKey | None:
        """The row itself where jobs or seconds are bounded."""
        return None if self.max_jobs is None and self.max_compute_seconds is None else self
