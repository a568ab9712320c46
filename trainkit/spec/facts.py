"""What is known of a dataset without opening it: enough to check and complete a spec. JSON-able, no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

DatasetKind = Literal["images", "image_table", "table", "arrays", "idx", "sequences", "weights"]
DATASET_KINDS: tuple[str, ...] = ("images", "image_table", "table", "arrays", "idx", "sequences", "weights")


class ColumnFacts(BaseModel):
    """One table column."""

    model_config = ConfigDict(frozen=True)

    name: str
    type: Literal["numeric", "categorical"]
    missing: int = 0
    unique: int = 0
    integer: bool = False
    """Numeric and every present value is a whole number."""
    categories: dict[str, int] | None = None
    """Category (or whole number with few values) -> count, at most 1000; None when there are more."""


class DatasetFacts(BaseModel):
    """Facts of a prepared dataset, stored with it."""

    model_config = ConfigDict(frozen=True)

    kind: DatasetKind
    samples: int
    input_shape: tuple[int, ...] | None = None
    """(C, H, W) for images, (d,) for arrays, (T, F) for sequences; None for tables (it depends on the columns)."""
    input_dtype: str = "float32"
    classes: dict[str, int] | None = None
    """Class name -> samples, in class-index order; None for regression, and for tables (see columns)."""
    target_type: Literal["class", "number", "none"] | None = None
    """None for tables until a target column is chosen."""
    columns: tuple[ColumnFacts, ...] | None = None
    target: str | None = None
    """The table's target column as named at upload."""
    splits: dict[str, int] | None = Field(default=None)
    """Samples in each predefined part (train, validation, test); None when the dataset ships none."""
    target_width: int = 1
    """Numbers to predict for each sample (regression)."""
    lengths: tuple[int, int] | None = None
    """Shortest and longest sequence."""

    def column(self, name: str) -> ColumnFacts | None:
        """The column of that name, or None."""
        return next((column for column in self.columns or () if column.name == name), None)
