"""Projects."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Audited, Base, Json, UtcDateTime


class Project(Base):
    """Owner of everything; a key sees only its own project."""

    __tablename__ = "projects"
    audited = Audited("project")
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    settings: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """What the project has set for itself; 0 stands for no limit, what is left out for the service's own."""
    limits: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """What the operator has set for it instead of the service's limits; 0 stands for no limit."""
    archived_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Since when it takes no more writes."""
