"""Wire format of datasets."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.datasets.tables import DatasetVersion
from trainkit.spec.augment import AugmentStep
from trainkit.spec.facts import DatasetKind
from trainkit.spec.read_options import Channels, Delimiter, Encoding, Header, ImageSize, ReadOptions, TargetTask

NAME = r"^[^\x00-\x1f/\\]+$"


class DatasetOut(BaseModel):
    """A dataset: one immutable version of a name."""

    id: str
    name: str
    version: int
    kind: str | None
    target: str | None
    read_options: dict[str, Any] | None
    state: Literal["uploading", "validating", "ready", "invalid"]
    phase: str | None
    progress: dict[str, Any] | None
    sha256: str | None
    bytes: int
    samples: int | None
    classes: list[str] | None
    error: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime


def read_options_of(**values: Any) -> dict[str, Any] | None:
    """Return the options that were given, None when none was. Raises ValidationError."""
    return ReadOptions.model_validate(values).model_dump(exclude_none=True) or None


class SourceIn(BaseModel):
    """A file that the service fetches itself."""

    model_config = ConfigDict(extra="forbid")
    uri: str = Field(min_length=1, max_length=2000, description="file:///path or s3://bucket/key.")
    name: str | None = Field(None, min_length=1, max_length=200, pattern=NAME, description="Left out: the file's.")
    kind: DatasetKind | None = Field(None, description="Left out: detected.")
    target: str | None = Field(
        None, max_length=300, pattern=r"^[^\x00]*$", description="Tables: the column to predict."
    )
    delimiter: Delimiter | None = None
    encoding: Encoding | None = None
    header: Header | None = None
    image_size: ImageSize | None = None
    channels: Channels | None = None
    task: TargetTask | None = None


class PreviewIn(BaseModel):
    """Which steps, on which sample, how often."""

    model_config = ConfigDict(extra="forbid")
    augment: list[AugmentStep] = Field(min_length=1, max_length=32)
    count: int = Field(20, ge=1, le=100)
    index: int = Field(0, ge=0, lt=2**31, description="Position of the sample in the dataset.")
    seed: int = Field(0, ge=0, lt=2**31)


def dataset_out(row: DatasetVersion) -> DatasetOut:
    """Map a row to the wire format."""
    classes = (row.facts or {}).get("classes")
    return DatasetOut(
        id=row.id,
        name=row.name,
        version=row.version,
        kind=row.kind,
        target=row.target,
        read_options=row.read_options,
        state=row.state,
        phase=row.phase,
        progress=row.progress,
        sha256=row.blob_sha256,
        bytes=row.bytes,
        samples=row.samples,
        classes=list(classes) if classes else None,
        error=row.error,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
