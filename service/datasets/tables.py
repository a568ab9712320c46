"""Uploaded bytes, stored once by content, and the datasets made from them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Audited, Base, Json, Name, UtcDateTime, partial_index
from service.leases import Leased

UNMEASURED = "prepared_key IS NOT NULL AND prepared_bytes = 0"
"""SQL of "the prepared form has not been measured", word for word as in the index that serves it."""


class Blob(Base):
    """Bytes in storage, named by their SHA-256."""

    __tablename__ = "blobs"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    storage_key: Mapped[str] = mapped_column(String(300))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class DatasetVersion(Leased, Base):
    """An immutable version of a named dataset: uploading -> validating -> ready or invalid."""

    __tablename__ = "datasets"
    audited = Audited(
        "dataset",
        omitted=frozenset({"phase", "progress", "facts", "report", "prepared_key", "prepared_bytes", "interruptions"}),
    )
    __table_args__ = (
        UniqueConstraint("project_id", "name", "version"),
        Index("datasets_by_state", "state", "project_id", "created_at"),
        Index("datasets_by_project", "project_id", "id"),
        Index("datasets_by_project_state", "project_id", "state", "id"),
        Index("datasets_by_name", "project_id", "name", "id"),
        Index("datasets_by_blob", "blob_sha256"),
        partial_index("datasets_unmeasured", "id", where=UNMEASURED),
        partial_index("datasets_by_lease", "lease_expires_at", where="lease_expires_at IS NOT NULL"),
    )
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(Name)
    version: Mapped[int]
    kind: Mapped[str | None] = mapped_column(String(40))
    target: Mapped[str | None] = mapped_column(String(300))
    filename: Mapped[str | None] = mapped_column(String(300))
    read_options: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """What the client said of how the bytes are read (`trainkit.spec.read_options`)."""
    state: Mapped[str] = mapped_column(String(20))
    phase: Mapped[str | None] = mapped_column(String(200))
    progress: Mapped[dict[str, Any] | None] = mapped_column(Json)
    source_uri: Mapped[str | None] = mapped_column(String(2000))
    """Where the bytes are to be fetched from, while the state is `uploading`."""
    blob_sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"))
    bytes: Mapped[int] = mapped_column(BigInteger)
    samples: Mapped[int | None]
    facts: Mapped[dict[str, Any] | None] = mapped_column(Json)
    report: Mapped[dict[str, Any] | None] = mapped_column(Json)
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    prepared_key: Mapped[str | None] = mapped_column(String(300))
    prepared_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    interruptions: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
