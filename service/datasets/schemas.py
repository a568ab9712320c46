"""Wire format of datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError

from service.datasets.tables import DatasetVersion
from service.registry.names import Name
from service.request_model import RequestModel
from trainkit.spec.augment import AugmentStep
from trainkit.spec.facts import ColumnFacts, DatasetKind, holds_classes
from trainkit.spec.read_options import ReadOptions


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
    aliases: list[str]
    """What `name@alias` means this version."""
    created_at: datetime
    updated_at: datetime


def read_options_of(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the options that were given, None when none was. Raises ValidationError."""
    return ReadOptions.model_validate(values).model_dump(mode="json", exclude_none=True) or None


def read_options_in(place: str, values: Mapping[str, Any]) -> dict[str, Any] | None:
    """The same for the parameters of a request in `place`. Raises RequestValidationError, a 422 problem."""
    try:
        return read_options_of(values)
    except ValidationError as error:
        items = error.errors(include_url=False)
        raise RequestValidationError([{**item, "loc": (place, *item["loc"])} for item in items]) from None


class SourceIn(ReadOptions):
    """A file that the service fetches itself."""

    uri: str = Field(min_length=1, max_length=2000, description="file:///path or s3://bucket/key.")
    name: Name | None = Field(None, description="Left out: the file's.")
    kind: DatasetKind | None = Field(None, description="Left out: detected.")
    target: str | None = Field(
        None, max_length=300, pattern=r"^[^\x00]*$", description="Tables: the column to predict."
    )


class RereadIn(ReadOptions):
    """What is to be read in another way. A field that is left out stays as it is; null: detected."""

    kind: DatasetKind | None = None
    target: str | None = Field(
        None, max_length=300, pattern=r"^[^\x00]*$", description="Tables: the column to predict."
    )

    @property
    def changes(self) -> dict[str, Any]:
        """The fields that were sent."""
        given = self.model_dump(mode="json", exclude_none=True)
        return {name: given.get(name) for name in self.model_fields_set}


class PreviewIn(RequestModel):
    """Which steps, on which sample, how often."""

    augment: list[AugmentStep] = Field(min_length=1, max_length=32)
    count: int = Field(20, ge=1, le=100)
    index: int = Field(0, ge=0, lt=2**31, description="Position of the sample in the dataset.")
    seed: int = Field(0, ge=0, lt=2**31)


def _classes(facts: Mapping[str, Any]) -> list[str] | None:
    """The classes of the targets; of a table those of its target column, where it is named and holds classes."""
    if facts.get("classes"):
        return list(facts["classes"])
    columns = {column["name"]: ColumnFacts.model_validate(column) for column in facts.get("columns") or ()}
    column = columns.get(facts.get("target") or "")
    if column is None or column.categories is None or not holds_classes(column):
        return None
    return list(column.categories)


def dataset_out(row: DatasetVersion, aliases: Sequence[str] = ()) -> DatasetOut:
    """Map a row to the wire format."""
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
        classes=_classes(row.facts or {}),
        error=row.error,
        aliases=list(aliases),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
