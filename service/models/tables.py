"""Trained models."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from service.database import Audited, Base, Json, UtcDateTime, partial_index


class Model(Base):
    """A trained model: a folder in storage with model.safetensors and model.json."""

    __tablename__ = "models"
    audited = Audited("model", omitted=frozenset({"manifest", "storage_key", "digests"}))
    __table_args__ = (
        UniqueConstraint("project_id", "name", "version"),
        Index("models_by_project", "project_id", "id"),
        Index("models_by_storage_key", "storage_key"),
        partial_index("models_without_digests", "storage_key", where="digests IS NULL"),
    )
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), index=True)
    name: Mapped[str] = mapped_column(String(200))
    """The job's, as far as it is a name; '' of a job that has none."""
    version: Mapped[int | None]
    """None without a name."""
    labels: Mapped[dict[str, Any]] = mapped_column(Json, default=dict, server_default="{}")
    notes: Mapped[str | None] = mapped_column(Text)
    lineage: Mapped[dict[str, Any]] = mapped_column(Json, default=dict, server_default="{}")
    """`{job, dataset: {id, name, version, sha256}, spec_sha256, parents, trainkit}`: it outlives all of them."""
    kind: Mapped[str] = mapped_column(String(40))
    storage_key: Mapped[str] = mapped_column(String(300))
    manifest: Mapped[dict[str, Any]] = mapped_column(Json)
    metrics: Mapped[dict[str, Any]] = mapped_column(Json)
    bytes: Mapped[int] = mapped_column(BigInteger)
    digests: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """`{"model.safetensors": {sha256, header_sha256}, "model.onnx": {sha256}}`; None until the files have been read."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
