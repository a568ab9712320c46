"""Uploads on their way: how far each has come, and what it shall become."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Audited, Base, Json, UtcDateTime


class Upload(Base):
    """uploading -> received (every byte on disk, hashed) -> finished (the dataset is there), or failed.

    `received` bytes are on disk for certain; the file may be longer when a process was killed. `fence` rises with every
    writer, so that one that was given up writes nothing more.
    """

    __tablename__ = "uploads"
    audited = Audited("upload", omitted=frozenset({"received", "metadata_header", "storage_key", "expires_at"}))
    __table_args__ = (
        Index("uploads_by_state", "state", "expires_at"),
        Index("uploads_by_project", "project_id", "id"),
        Index("uploads_by_project_state", "project_id", "state", "id"),
        Index("uploads_by_expiry", "expires_at"),
    )
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    state: Mapped[str] = mapped_column(String(20))
    length: Mapped[int | None] = mapped_column(BigInteger)
    received: Mapped[int] = mapped_column(BigInteger, default=0)
    fence: Mapped[int] = mapped_column(default=0)
    metadata_header: Mapped[str] = mapped_column(Text)
    """`Upload-Metadata` as it came: HEAD gives it back."""
    name: Mapped[str] = mapped_column(String(200))
    kind: Mapped[str | None] = mapped_column(String(40))
    target: Mapped[str | None] = mapped_column(String(300))
    filename: Mapped[str | None] = mapped_column(String(300))
    read_options: Mapped[dict[str, Any] | None] = mapped_column(Json)
    storage_key: Mapped[str] = mapped_column(String(300))
    sha256: Mapped[str | None] = mapped_column(String(64))
    dataset_id: Mapped[str | None] = mapped_column(String(40))
    """No foreign key: the dataset may be deleted while the upload's record is still kept."""
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
