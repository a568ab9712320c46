"""Work that needs torch, and its answers: the API has no torch, so a worker of the queue `predict` does it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Base, Json, UtcDateTime, partial_index
from service.leases import Leased


class InferenceRequest(Leased, Base):
    """`kind` names the work, `subject_key` the folder in storage that it is about (a model's or a prepared dataset's)."""

    __tablename__ = "inference_requests"
    __table_args__ = (
        Index("inference_requests_by_state", "state", "project_id", "created_at"),
        Index("inference_requests_by_age", "created_at"),
        partial_index("inference_requests_by_lease", "lease_expires_at", where="lease_expires_at IS NOT NULL"),
    )
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    kind: Mapped[str] = mapped_column(String(40))
    subject_key: Mapped[str] = mapped_column(String(300))
    request: Mapped[bytes] = mapped_column(LargeBinary)
    media_type: Mapped[str] = mapped_column(String(100))
    options: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """Parameters that change how the request is read, and the key of a second folder: evaluate's dataset."""
    state: Mapped[str] = mapped_column(String(20))
    response: Mapped[bytes | None] = mapped_column(LargeBinary)
    response_type: Mapped[str | None] = mapped_column(String(100))
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
