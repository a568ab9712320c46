"""Wire format of evaluations of models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator

from service.request_model import RequestModel

Part = Literal["all", "train", "validation", "test"]
Target = Field(None, max_length=300, pattern=r"^[^\x00]*$", description="Tables: the column with the answers.")


DatasetId = Annotated[str, Field(min_length=1, max_length=40)]


class EvaluatedDataset(RequestModel):
    """A dataset to evaluate a model on."""

    id: DatasetId
    target: str | None = Target


class EvaluateIn(RequestModel):
    """Which dataset, and which part of it."""

    dataset: EvaluatedDataset
    """The dataset's id, or an object with id and target."""
    part: Part = Field(
        "all", description="A part of the model's own split for its training dataset, else one that the dataset ships."
    )

    @field_validator("dataset", mode="before", json_schema_input_type=DatasetId | EvaluatedDataset)
    @classmethod
    def dataset_by_id(cls, value: object) -> object:
        return {"id": value} if isinstance(value, str) else value


class ModelEvaluationOut(BaseModel):
    """Metrics of a model on labelled samples: the same as `GET /v1/jobs/{id}/evaluation`, with warnings.

    A warning is `{code, message}`, for columns of a table also `{column, rows, first_row}`. The codes are trained_on (the
    samples include training samples), absent_class, other_type, unreadable, and those of predict.
    """

    split: Part
    samples: int
    metrics: dict[str, float | str | None]
    per_class: list[dict[str, Any]]
    confusion_matrix: list[list[int]]
    classes: list[str]
    ablation: dict[str, Any] | None = Field(
        None,
        description="Multimodal models: `{permutations, without_image, without_columns}`, the metrics when the image or the "
        "columns are another sample's.",
    )
    warnings: list[dict[str, Any]]
