"""Facts of a dataset, known without opening it, and what they make of its samples for a spec: shape, columns, task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from trainkit.spec.job import JobSpec, Task
from trainkit.spec.preprocess import PreprocessStep

DatasetKind = Literal["images", "image_table", "table", "arrays", "idx", "sequences", "weights"]
DATASET_KINDS: tuple[str, ...] = ("images", "image_table", "table", "arrays", "idx", "sequences", "weights")


MOST_CATEGORIES = 1000
"""Categories of a column that are listed."""
MOST_CATEGORY_CHARACTERS = 2**20
"""Of all of them together: reports hold them, every check of a spec reads them, and a cell may have ten million."""


class ColumnFacts(BaseModel):
    """One table column."""

    model_config = ConfigDict(frozen=True)

    name: str
    type: Literal["numeric", "categorical", "date"]
    missing: int = 0
    infinite: int = 0
    """Numbers that are infinite in the float32 of a training run: infinity itself, and beyond 3.4e38."""
    unique: int = 0
    integer: bool = False
    """Numeric and every present value is a whole number."""
    categories: dict[str, int] | None = None
    """Category (or whole number or date, as the file writes it) -> count, at most 1000 with 1 MiB of text; None
    when there are more."""

    @property
    def discrete(self) -> bool:
        """Whether its values can be classes: text, whole numbers and dates."""
        return self.type != "numeric" or self.integer


class DatasetFacts(BaseModel):
    """Facts of a prepared dataset, stored with it."""

    model_config = ConfigDict(frozen=True)

    kind: DatasetKind
    samples: int
    input_shape: tuple[int, ...] | None = None
    """(C, H, W) for images, (d,) for arrays, (T, F) for sequences; None for tables (it depends on the columns)."""
    input_dtype: str = "float32"
    channels: Literal["first", "last"] | None = None
    """Images in arrays: where the file has the channels, (n, C, H, W) or (n, H, W, C); `input_shape` is always (C, H, W)."""
    value_ranges: tuple[tuple[float, float], ...] | None = None
    """Images: (low, high) of each channel as a network reads it (uint8 divided by 255); None: not measured."""
    classes: dict[str, int] | None = None
    """Class name -> samples, in class-index order; None for regression, and for tables (see columns)."""
    target_type: Literal["class", "number", "none"] | None = None
    """None for tables until a target column is chosen."""
    columns: tuple[ColumnFacts, ...] | None = None
    """Of a table; of images that a table describes, its columns beside file names and labels."""
    target: str | None = None
    """The table's target column as named at upload, or the one that labels the images."""
    splits: dict[str, int] | None = Field(default=None)
    """Samples in each predefined part (train, validation, test); None when the dataset ships none."""
    target_width: int = 1
    """Numbers to predict for each sample (regression)."""
    constant_target: bool = False
    """The numbers to predict are the same in all samples."""
    lengths: tuple[int, int] | None = None
    """Shortest and longest sequence."""
    series: tuple[str, ...] | None = None
    """Windows of a table: the columns of a step, the target last."""

    def column(self, name: str) -> ColumnFacts | None:
        """The column of that name, or None."""
        return next((column for column in self.columns or () if column.name == name), None)


IMAGE_KINDS = ("images", "image_table", "idx")
FEW_VALUES = 20
"""A whole-number column with at most this many different values is taken for classes, unless `task` says otherwise."""
MOST_UNLABELLED = 0.5
"""Beyond this share of samples without a target it is more likely the wrong column, or a value read as missing."""
SampleForm = Literal["vector", "image", "sequence"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample: `vector` (d,), `image` (C, H, W) or `sequence` (T, F) with T the longest length."""

    form: SampleForm
    shape: tuple[int, ...]
    columns: int = 0
    """Values that a multimodal model reads beside the image."""

    @property
    def size(self) -> int:
        """Number of values in one sample."""
        product = 1
        for side in self.shape:
            product *= side
        return product + self.columns


def target_column(spec: JobSpec, facts: DatasetFacts) -> ColumnFacts | None:
    """The table column to predict, or None when it is unnamed or unknown."""
    name = spec.dataset.target or facts.target
    return facts.column(name) if name else None


def unlabelled_samples(spec: JobSpec, facts: DatasetFacts) -> int:
    """Return the number of rows without a value in the target column: they are in no part."""
    column = target_column(spec, facts) if facts.kind == "table" and spec.task != "forecasting" else None
    return 0 if column is None else column.missing


def labelled_samples(spec: JobSpec, facts: DatasetFacts) -> int:
    """Return the number of samples that are cut into parts."""
    return facts.samples - unlabelled_samples(spec, facts)


def feature_columns(spec: JobSpec, facts: DatasetFacts) -> list[ColumnFacts]:
    """The table columns to learn from, in the table's order, or in the order the spec names them."""
    target = spec.dataset.target or facts.target
    left_out = {*spec.dataset.ignore, target}
    if spec.dataset.features is not None:
        named = [facts.column(name) for name in spec.dataset.features]
        return [column for column in named if column is not None and column.name not in left_out]
    return [column for column in facts.columns or () if column.name not in left_out]


def column_steps(spec: JobSpec) -> tuple[PreprocessStep, ...]:
    """The preprocessing of the columns, of a table or beside images."""
    return (spec.preprocess_columns if spec.model.kind == "multimodal" else spec.preprocess) or ()


def sample_of(spec: JobSpec, facts: DatasetFacts) -> Sample:
    """Form and shape of one sample before preprocessing."""
    if facts.kind == "table":
        return Sample("vector", (_columns_width(spec, facts),))
    shape = facts.input_shape or ()
    if facts.kind == "image_table" and spec.model.kind == "multimodal":
        return Sample("image", shape, _columns_width(spec, facts))
    if facts.kind == "sequences":
        return Sample("sequence", shape)
    if facts.kind in IMAGE_KINDS or len(shape) == 3:
        return Sample("image", shape if len(shape) == 3 else (1, *shape))
    if len(shape) == 2:
        return Sample("image", (1, *shape))
    return Sample("vector", shape)


def _columns_width(spec: JobSpec, facts: DatasetFacts) -> int:
    return sum(_column_width(spec, column) for column in feature_columns(spec, facts))


def _column_width(spec: JobSpec, column: ColumnFacts) -> int:
    if column.type != "categorical":
        return 1
    as_category = any(s.kind == "impute" and s.categorical == "category" for s in column_steps(spec))
    return len(column.categories or ()) + int(as_category and column.missing > 0)


def infer_task(spec: JobSpec, facts: DatasetFacts) -> Task | None:
    """Classes: classification (of sequences: sequence_classification); numbers: regression; None when undecidable."""
    if spec.task is not None:
        return spec.task
    if facts.kind == "table":
        column = target_column(spec, facts)
        if column is None:
            return None
        return "classification" if holds_classes(column) else "regression"
    if facts.target_type == "class":
        return "sequence_classification" if facts.kind == "sequences" else "classification"
    return "regression" if facts.target_type == "number" else None


def holds_classes(column: ColumnFacts) -> bool:
    """Whether a target column is taken for classes, where the spec does not say the task."""
    return column.type == "categorical" or (column.discrete and column.unique <= FEW_VALUES)


def is_classification(task: Task) -> bool:
    """Whether the targets are classes."""
    return task in ("classification", "sequence_classification")


def class_counts(spec: JobSpec, facts: DatasetFacts) -> dict[str, int] | None:
    """Class -> samples of the target, or None when it has no classes."""
    if facts.kind == "table":
        column = target_column(spec, facts)
        return column.categories if column is not None else None
    return facts.classes
