"""Wire format of uploads."""

from __future__ import annotations

from typing import Literal

from service.response_model import FailureOut, ResponseModel
from service.timestamps import Timestamp
from service.uploads.tables import Upload

UploadState = Literal["uploading", "received", "finished", "failed"]


class UploadOut(ResponseModel):
    """A resumable upload: its offset, its state, and the dataset created from it."""

    id: str
    state: UploadState
    offset: int
    length: int | None
    name: str
    kind: str | None
    target: str | None
    filename: str | None
    sha256: str | None
    dataset: str | None
    error: FailureOut | None
    expires_at: Timestamp
    created_at: Timestamp
    updated_at: Timestamp


def upload_out(row: Upload) -> UploadOut:
    """Map a row to the wire format."""
    return UploadOut.model_validate(
        {
            "id": row.id,
            "state": row.state,
            "offset": row.received,
            "length": row.length,
            "name": row.name,
            "kind": row.kind,
            "target": row.target,
            "filename": row.filename,
            "sha256": row.sha256,
            "dataset": row.dataset_id,
            "error": row.error,
            "expires_at": row.expires_at,
            "created_at": row.created_at,
            "updated_at": row.updated_at,
        }
    )
