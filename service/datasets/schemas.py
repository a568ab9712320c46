"""Wire format of datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fastapi.exceptions import RequestValidationError
from pydantic import ConfigDict, Field, ValidationError

from service.datasets.tables import DatasetVersion
from service.registry.names import Name
from service.request_model import RequestModel
from service.response_model import (
    AttainableOut,
    FactsDocument,
    FailureOut,
    ReadOptionsDocument,
    ResponseModel,
    StoredDocument,
)
from service.timestamps import Timestamp
from trainkit.spec.augment import AugmentStep
from trainkit.spec.facts import ColumnFacts, DatasetKind, holds_classes
from trainkit.spec.read_options import ReadOptions

DatasetState = Literal["uploading", "validating", "ready", "invalid"]


class CheckProgressOut(StoredDocument):
    """How far the check of a dataset has come."""

    samples: int | None = None
    """Samples that were read."""
    bytes: int | None = None
    """Bytes that were copied from the dataset's source."""


class DatasetOut(ResponseModel):
    """A dataset: one immutable version of a name."""

    id: str
    name: str
    version: int
    kind: str | None
    target: str | None
    read_options: ReadOptionsDocument | None
    """How the file is read, where that was said."""
    state: DatasetState
    phase: str | None
    progress: CheckProgressOut | None
    sha256: str | None
    bytes: int
    samples: int | None
    classes: list[str] | None
    error: FailureOut | None
    aliases: list[str]
    """What `name@alias` means this version."""
    created_at: Timestamp
    updated_at: Timestamp


class FindingOut(StoredDocument):
    """Something about the data that is worth knowing before training."""

    severity: Literal["error", "warning", "info"] = "info"
    code: str = ""
    message: str = ""
    where: str = ""
    """A file, row or column; empty where it is about the whole."""


class UnreadableOut(StoredDocument):
    """A file or row that was left out."""

    where: str = ""
    reason: str = ""


class DataProblemOut(StoredDocument):
    """Why the dataset is invalid."""

    where: str = ""
    code: str = ""
    message: str = ""
    hint: str = ""


class ReportColumnOut(ResponseModel):
    """A column of the table and how it is read; with its facts where it is one that a job can use."""

    model_config = ConfigDict(extra="allow")
    name: str
    read_as: str | None = None
    summary: str | None = None


class DatasetReportOut(ResponseModel):
    """What the check found. Which further fields there are depends on the kind of dataset."""

    model_config = ConfigDict(extra="allow")
    facts: FactsDocument | None
    """What is known of the dataset without opening it; null of an invalid one."""
    error: FailureOut | None
    errors: list[DataProblemOut] = []
    """Of an invalid dataset."""
    kind: str | None = None
    detected_because: str | None = None
    samples: int | None = None
    classes: dict[str, int] | None = None
    """Samples of each class; null for numbers, and for tables without a target."""
    splits: dict[str, int] | None = None
    """Samples of each part that the dataset ships; null where it ships none."""
    classes_by_split: dict[str, dict[str, int]] = {}
    findings: list[FindingOut] = []
    """The most severe first."""
    unreadable: list[UnreadableOut] = []
    columns: list[ReportColumnOut] = []
    column_statistics: dict[str, dict[str, float]] = {}
    """Of each numeric column: mean, std, min, q1, median, q3, max."""
    channel_means: list[float] = []
    """Of images, on the scale from 0 to 1."""
    channel_stds: list[float] = []
    attainable: list[AttainableOut] = []
    """What reference models reach, of each split that a job has used: measured once, with the first job."""


class ColumnDriftOut(ResponseModel):
    """How a column, the classes, or a channel of images changed. What cannot be measured of its kind is null."""

    name: str
    kind: str
    """`numeric`, `categorical` ..., `classes` or `channel`."""
    ks_at_least: float | None
    """A lower bound of the Kolmogorov-Smirnov statistic, from the quartiles of both."""
    psi: float | None
    """Population stability index of the counts of categories."""
    shift: float | None
    """Difference of the means in standard deviations; null for values that were constant and differ."""
    mean_before: float | None
    mean_after: float | None
    missing_before: float | None
    """Share of the samples without a value."""
    missing_after: float | None
    drifted: bool
    """Large enough to matter and beyond chance at a level of 0.001, or another type of column."""


class DatasetDriftOut(ResponseModel):
    """How a dataset differs from an earlier version or another dataset, by their reports."""

    before: str
    """Id of the dataset that it is compared with."""
    after: str
    samples_before: int
    samples_after: int
    added: list[str]
    """Columns that `before` does not have."""
    removed: list[str]
    columns: list[ColumnDriftOut]
    """Those that drifted first."""


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
    return DatasetOut.model_validate(
        {
            "id": row.id,
            "name": row.name,
            "version": row.version,
            "kind": row.kind,
            "target": row.target,
            "read_options": row.read_options,
            "state": row.state,
            "phase": row.phase,
            "progress": row.progress,
            "sha256": row.blob_sha256,
            "bytes": row.bytes,
            "samples": row.samples,
            "classes": _classes(row.facts or {}),
            "error": row.error,
            "aliases": list(aliases),
            "created_at": row.created_at,
            "updated_at": row.updated_at,
        }
    )
