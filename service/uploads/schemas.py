"""Wire format of uploads."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from service.uploads.tables import Upload


class UploadOut(BaseModel):
    """A resumable upload: its offset, its state, and the dataset created from it."""

    id: str
    state: Literal["uploading", "received", "finished", "failed"]
    offset: int
    length: int | None
    name: str
    kind: str | None
    target: str | None
    filename: str | None
    sha256: str | None
    dataset: str | None
    error: dict[str, Any] | None
    expires_at: datetime
    created_at: datetime
    updated_at: datetime


def upload_out(row: Upload) -> UploadOut:
    """Map a row to the wire format."""
    return UploadOut(
        id=row.id,
        state=row.state,
        offset=row.received,
        length=row.length,
        name=row.name,
        kind=row.kind,
        target=row.target,
        filename=row.filename,
        sha256=row.sha256,
        dataset=row.dataset_id,
        error=row.error,
        expires_at=row.expires_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
