"""The base of JSON responses, and the shapes that several resources share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from trainkit.spec.failures import Layer

STANDS_FOR = "x-stands-for"
"""In a schema: the name of the component that `service/openapi.py` puts in its place."""


def described_as(component: str) -> WithJsonSchema:
    """Annotation of plain data that was checked when it was stored: described as a component, and not read again."""
    return WithJsonSchema({"type": "object", STANDS_FOR: component})


class ResponseModel(BaseModel):
    """A JSON response: what is written under a field describes it in the OpenAPI document."""

    model_config = ConfigDict(use_attribute_docstrings=True)


def _without_defaults(schema: dict[str, Any]) -> None:
    for field in schema.get("properties", {}).values():
        field.pop("default", None)


class StoredDocument(ResponseModel):
    """A part of a response that is read from JSON in the database, which an earlier version may have written.

    Each field has a default, for documents that lack it: nothing where it may be null, else what was so before the field
    was recorded, else 0 or an empty text. For clients the fields are always there.
    """

    model_config = ConfigDict(json_schema_serialization_defaults_required=True, json_schema_extra=_without_defaults)


JsonObject = dict[str, Any]
"""An object whose names are not known beforehand: a JSON merge patch, the parameters of a trial, evidence."""
SpecDocument = Annotated[dict[str, Any], described_as("JobSpec")]
RuleDocument = Annotated[dict[str, Any], described_as("EarlyStopSpec")]
ReadOptionsDocument = Annotated[dict[str, Any], described_as("ReadOptions")]
FactsDocument = Annotated[dict[str, Any], described_as("DatasetFacts")]
PlanDocument = Annotated[dict[str, Any], described_as("ExperimentSpec")]
MetricValues = dict[str, float | None]
"""Name of a metric to its value; null where it is not finite, which JSON cannot hold."""


class FailureOut(StoredDocument):
    """Why something failed. The catalog's section `failure` lists the codes."""

    code: str = "internal_error"
    """Stable: scripts may rely on it. New codes may come."""
    layer: Layer = "internal"
    """Where the cause lies."""
    message: str = ""
    evidence: JsonObject = {}
    """The numbers and places behind the message."""
    retryable: bool = False
    """Whether the service tries again by itself, or another try may succeed."""
    hint: str = ""
    """What to do."""


class ClassMetricsOut(StoredDocument):
    """How well one class is recognised."""

    class_: str = Field("", alias="class")
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    support: int = 0
    """Samples of the class."""


class AblationOut(StoredDocument):
    """What a multimodal model makes of each of its inputs: means over permutations of the other one."""

    permutations: int = 0
    without_image: MetricValues = {}
    without_columns: MetricValues = {}


class ReferenceOut(ResponseModel):
    """One reference model."""

    name: str
    state: Literal["fitted", "stopped", "left_out", "failed"]
    """stopped: out of time, with a value where it had one by then; left_out: not begun, for lack of time."""
    value: float | None = None
    """Of the validation part."""
    low: float | None = None
    high: float | None = None
    recall: float | None = None
    """Of classes: the mean over them."""
    cross_validation: float | None
    """The metric inside the training part, by which the references are compared."""
    seconds: float
    reason: str | None
    """Why it failed."""


class AttainableOut(ResponseModel):
    """What good, quick models reach on the validation part of a dataset and split, with its 95 % interval.

    The reference was chosen inside the training part: the validation part had no say, and the test part was not read.
    """

    metric: Literal["accuracy", "r2"]
    value: float
    low: float
    high: float
    reference: str
    references: list[ReferenceOut]
    samples: int
    """Of the validation part."""
    train_samples: int
    """That the references were fitted on."""
    train_share: float
    """Share of the training part that these are: below 1 of large data."""
    seconds: float
    limit_seconds: float
    complete: bool
    """Whether every reference ended in time. If not, a job with twice the time measures again."""
    key: str
    """The same for jobs on the same dataset, columns, task and split."""


class CalibrationBinOut(StoredDocument):
    """Samples whose confidence lies between `low` and `high`."""

    low: float = 0
    high: float = 0
    samples: int = 0
    confidence: float = 0
    """The mean of their largest class probabilities."""
    accuracy: float = 0


class CalibrationOut(StoredDocument):
    """Whether a classifier is right as often as it is sure."""

    expected_calibration_error: float = 0
    """The mean of |accuracy - confidence| over the samples, by bin."""
    bins: list[CalibrationBinOut] = []
    """Of equal width; empty ones are left out."""


class MisclassifiedOut(StoredDocument):
    """Samples of one class that were taken for another."""

    actual: int = 0
    """Position in `classes`."""
    predicted: int = 0
    samples: list[int] = []
    """Positions in the dataset, the surest mistakes first, at most 12."""


class EvaluationBase(ResponseModel):
    """Metrics of a model on labelled samples."""

    samples: int
    metrics: MetricValues
    per_class: list[ClassMetricsOut] = []
    """Empty for numbers, like the next two."""
    confusion_matrix: list[list[int]] = []
    """Rows are the true classes, columns the predicted ones, in the order of `classes`."""
    classes: list[str] = []
    misclassified: list[MisclassifiedOut] = []
    """Pairs of classes that were confused, the most frequent first, at most 200; empty for rows that are in no dataset.
    `GET /v1/datasets/{dataset}/preview.png?samples=` shows the samples."""
    calibration: CalibrationOut | None = None
    """Null for numbers, and for a model whose outputs are no probabilities."""
    ablation: AblationOut | None = None
    """Multimodal models: the metrics when the image or the columns are another sample's."""


class IssueOut(ResponseModel):
    """Something found in a document: where, what, and what to do."""

    pointer: str
    """A JSON pointer into what was sent."""
    code: str
    message: str
    hint: str
