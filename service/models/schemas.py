"""Wire format of models, predictions and evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from service.labels import MAX_NOTES, LabelsPatch
from service.models.tables import Model
from service.registry.names import MAX_REFERENCE, Name
from service.request_model import RequestModel
from service.response_model import EvaluationBase, MetricValues, ResponseModel, SpecDocument, StoredDocument
from service.timestamps import Timestamp

Part = Literal["all", "train", "validation", "test"]
Target = Field(None, max_length=300, pattern=r"^[^\x00]*$", description="Tables: the column with the answers.")


class ManifestOut(StoredDocument):
    """What the model's file `model.json` says. Which further fields there are depends on the kind of model."""

    model_config = ConfigDict(extra="allow")
    format: str | None = None
    kind: str | None = None
    name: str | None = None
    task: str | None = None
    classes: list[str] | None = None
    """In the order of its outputs; null for numbers."""
    metrics: dict[str, MetricValues] = {}
    """Of each held-out part."""
    versions: dict[str, str] = {}
    spec: SpecDocument | None = None


class LineageDataset(StoredDocument):
    """The bytes that a model was trained on; name, version and digest are null where only the id is known."""

    id: str = ""
    name: str | None = None
    version: int | None = None
    sha256: str | None = None


class LineageOut(StoredDocument):
    """What a model was made of. It is kept when the job, the dataset or a parent is deleted."""

    job: str | None = None
    dataset: LineageDataset | None = None
    spec_sha256: str | None = None
    """SHA-256 of the job's `resolved` spec without `name`, `labels` and `group`, as JSON with sorted keys and no spaces."""
    parents: list[str] = []
    """Models and datasets of weights that it began with; the members of an ensemble."""
    trainkit: str | None = None
    """The version that trained it."""


class ModelRow(ResponseModel):
    """A trained model in a list."""

    id: str
    job: str | None
    name: str | None
    version: int | None
    aliases: list[str]
    """What `name@alias` means this version."""
    kind: str
    labels: dict[str, str]
    notes: str | None
    metrics: MetricValues
    """Of the test part; else of the validation part."""
    bytes: int
    created_at: Timestamp
    updated_at: Timestamp


class ModelOut(ModelRow):
    """A trained model: one version of a name. One of a job without a name has neither name nor version."""

    lineage: LineageOut
    manifest: ManifestOut


class ModelPatch(RequestModel):
    """What of a model may change: its files never do."""

    name: Name | None = None
    """Another name: the model becomes its next version."""
    notes: str | None = Field(None, max_length=MAX_NOTES)
    labels: LabelsPatch | None = None
    """Labels to set, and null for those to remove."""

    @field_validator("name", mode="after")
    @classmethod
    def named(cls, value: str | None) -> str | None:
        if value is None:
            raise ValueError("a name cannot be removed: give another one")
        return value


def model_out(row: Model, aliases: Sequence[str]) -> ModelOut:
    """A row as scripts read it."""
    return ModelOut.model_validate(
        {
            "id": row.id,
            "job": row.job_id,
            "name": row.name or None,
            "version": row.version,
            "aliases": list(aliases),
            "kind": row.kind,
            "labels": row.labels,
            "notes": row.notes,
            "metrics": row.metrics,
            "lineage": LineageOut.model_validate({"job": row.job_id, **(row.lineage or {})}),
            "manifest": row.manifest,
            "bytes": row.bytes,
            "created_at": row.created_at,
            "updated_at": row.updated_at,
        }
    )


DatasetId = Annotated[str, Field(min_length=1, max_length=MAX_REFERENCE)]


class EvaluatedDataset(RequestModel):
    """A dataset to evaluate a model on."""

    id: DatasetId
    target: str | None = Target


class EvaluateIn(RequestModel):
    """Which dataset, and which part of it."""

    dataset: EvaluatedDataset
    """The dataset's id or name, `name:version` or `name@alias`; or an object with that as `id`, and `target`."""
    part: Part = Field(
        "all", description="A part of the model's own split for its training dataset, else one that the dataset ships."
    )

    @field_validator("dataset", mode="before", json_schema_input_type=DatasetId | EvaluatedDataset)
    @classmethod
    def dataset_by_id(cls, value: object) -> object:
        return {"id": value} if isinstance(value, str) else value


class PredictIn(RequestModel):
    """Samples to predict: each an object by column (tables), an array of numbers, or an image as base64."""

    inputs: list[Any]


class EvaluationWarningOut(ResponseModel):
    """What to know about the metrics.

    Codes: trained_on (the samples include training samples), absent_class, other_type, unreadable, and those of predict.
    """

    code: str
    message: str
    column: str | None = None
    """Of a table: the column that it is about, in `rows` rows, `first_row` the first."""
    rows: int | None = None
    first_row: int | None = None


class ModelEvaluationOut(EvaluationBase):
    """Metrics of a model on labelled samples: the same as `GET /v1/jobs/{id}/evaluation`, with warnings."""

    split: Part
    warnings: list[EvaluationWarningOut]


class PredictionWarningOut(ResponseModel):
    """What to know about a predicted row of a table.

    Codes: unseen_category (the training part did not have it), imputed (a missing value was filled), out_of_range (a
    number or date far outside the training part's).
    """

    column: str
    code: str
    message: str


class PredictionOut(ResponseModel):
    """The prediction of one sample: label and probabilities of a classifier, or the value of a regression."""

    label: str | None = None
    probabilities: dict[str, float | None] | None = None
    """Of each class."""
    value: float | list[float | None] | None = None
    """Several numbers where the model predicts several."""
    warnings: list[PredictionWarningOut] | None = None
    """Rows of a table only."""


class PredictionsOut(ResponseModel):
    """One prediction for each input, in their order."""

    predictions: list[PredictionOut]
