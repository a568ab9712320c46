"""Wire format of the files of a job."""

from __future__ import annotations

from service.response_model import ResponseModel
from service.timestamps import Timestamp


class ArtifactOut(ResponseModel):
    """A file of a job, by its name."""

    name: str
    media_type: str
    bytes: int | None
    """Null for one that is written when it is asked for."""
    sha256: str | None
    """In hexadecimal; null for one that is written when it is asked for."""
    created_at: Timestamp
