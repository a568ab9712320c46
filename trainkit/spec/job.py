"""The job spec: everything that decides a training run. The discriminated unions are the registry of kinds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from trainkit.spec.augment import AugmentStep
from trainkit.spec.base import OneOrMore, SpecModel
from trainkit.spec.early_stop import Diverged, EarlyStopRule
from trainkit.spec.investigation import DiagnoseSpec, InvestigationSpec
from trainkit.spec.losses import LossSpec
from trainkit.spec.models import ModelSpec
from trainkit.spec.optimizers import Adam, OptimizerSpec
from trainkit.spec.preprocess import PreprocessStep
from trainkit.spec.schedules import Constant, ScheduleSpec
from trainkit.spec.split import BalanceSpec, DatasetId, DatasetRef, SplitSpec
from trainkit.spec.text import Labels
from trainkit.spec.training import Adapt, RegularizeSpec, ResourcesSpec, StartFrom, TrainSpec

Task = Literal["classification", "regression", "sequence_classification", "forecasting"]


class JobSpec(SpecModel):
    """A training job. Every field but `dataset` and `model` has a default; unknown fields are errors."""

    name: str = Field("", max_length=200)
    """A name for people."""
    labels: Labels = Field(default_factory=dict)
    """Free key-value pairs to filter lists by."""
    group: str | None = Field(None, min_length=1, max_length=200)
    """Jobs of a project with the same group are compared by the peer rules; an experiment's jobs have its id here."""
    dataset: DatasetRef
    """The dataset's id or name (`digits`, `digits:2`, `digits@production`), or an object with that as `id`, target column,
    features ..."""
    task: Task | None = None
    """Left out: decided by the dataset (classes: classification, numbers: regression)."""
    split: SplitSpec = SplitSpec()
    """Training, validation and test parts."""
    balance: BalanceSpec = "none"
    """Re-balancing of the classes, on the training part only; or weights by hand, `{"no": 1, "yes": 5}`, one for each
    class: a loss is sum(w*l) / sum(w), as torch's CrossEntropyLoss(weight=...)."""
    preprocess: Annotated[Annotated[tuple[PreprocessStep, ...], Field(max_length=16)] | None, OneOrMore] = None
    """Steps in order, fitted on the training part. Left out: z_score for tables, none for others; []: none."""
    preprocess_columns: Annotated[Annotated[tuple[PreprocessStep, ...], Field(max_length=16)] | None, OneOrMore] = None
    """Multimodal models: the steps of the columns, where `preprocess` has those of the images. Left out: z_score."""
    augment: Annotated[tuple[AugmentStep, ...], Field(max_length=32), OneOrMore] = ()
    """Steps in order, drawn per training sample."""
    model: ModelSpec
    """The architecture."""
    loss: LossSpec | None = None
    """Left out: cross entropy for classes, mse for numbers, hinge for the SVM."""
    target_scaling: Literal["auto", "none", "z_score", "min_max"] = "auto"
    """Regression targets are scaled for training and scaled back in every metric and prediction; auto: z_score."""
    optimizer: OptimizerSpec = Adam()
    """How gradients become steps."""
    schedule: ScheduleSpec = Constant()
    """How the rate moves."""
    regularize: RegularizeSpec = RegularizeSpec()
    """Penalties and constraints."""
    train: TrainSpec = TrainSpec()
    """Epochs, batches, seed, precision."""
    early_stop: Annotated[tuple[EarlyStopRule, ...], Field(max_length=16), OneOrMore] = (Diverged(),)
    """Rules that end training early; the best weights are kept in any case."""
    start_from: StartFrom | None = None
    """Transfer learning."""
    adapt: Adapt | None = None
    """Domain adaptation with an unlabelled target dataset."""
    resources: ResourcesSpec = ResourcesSpec()
    """Device and limits."""
    diagnose: DiagnoseSpec = DiagnoseSpec()
    """What happens when the run has a fault."""
    investigation: InvestigationSpec | None = None
    """Of a job that investigates another one, in place of training: written by the service."""

    @field_validator("dataset", mode="before", json_schema_input_type=DatasetId | DatasetRef)
    @classmethod
    def dataset_by_id(cls, value: object) -> object:
        return {"id": value} if isinstance(value, str) else value
