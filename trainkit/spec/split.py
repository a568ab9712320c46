"""How samples are divided into training, validation and test parts (techniques, section 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator

from trainkit.spec.base import Fraction, NonNegative, Positive, Seed, SpecModel


class SplitSpec(SpecModel):
    """Ratios of any scale, normalised to sum 1; sizes by largest remainder, so they add up to n.

    `"8:2"` is train:test, `"8:2:2.5"` is train:validation:test (.64/.16/.20). A dataset that ships its own
    parts keeps them unless `use_predefined` is false.
    """

    train: Positive = 8.0
    """Share of the training part, on any scale."""
    validation: NonNegative = 1.0
    """Share of the validation part; 0 means none, and then no early stopping on validation metrics."""
    test: NonNegative = 1.0
    """Share of the test part; 0 means none."""
    stratify: bool = True
    """Keep the class proportions in every part (classification only)."""
    seed: Seed = 0
    """Seed of the shuffle that precedes the cut."""
    use_predefined: bool = True
    """Keep the parts that the dataset itself ships (folders train/val/test, a split column, X_train ...)."""
    subsample: Fraction | None = None
    """Train on this random fraction of the training part; validation and test stay whole."""

    @model_validator(mode="before")
    @classmethod
    def parse_ratio_text(cls, value: object) -> object:
        """Accept `"8:2"` (train:test) and `"8:2:2.5"` (train:validation:test)."""
        if not isinstance(value, str):
            return value
        try:
            numbers = [float(part) for part in value.split(":")]
        except ValueError:
            raise ValueError("write ratios as numbers with colons, such as 8:2 or 8:2:2.5") from None
        if len(numbers) == 2:
            return {"train": numbers[0], "validation": 0.0, "test": numbers[1]}
        if len(numbers) == 3:
            return {"train": numbers[0], "validation": numbers[1], "test": numbers[2]}
        raise ValueError("give two ratios (train:test) or three (train:validation:test)")

    @property
    def fractions(self) -> tuple[float, float, float]:
        """Normalised (train, validation, test) shares that sum to 1."""
        total = self.train + self.validation + self.test
        return self.train / total, self.validation / total, self.test / total


def part_sizes(total: int, shares: Sequence[float]) -> list[int]:
    """Whole sizes that add up to `total`, as close to total * share as whole numbers can be (largest remainder).

    `trainkit.data.splits.largest_remainder` in plain Python: the sizes that a split will have, known without its data.
    """
    exact = [total * share / sum(shares) for share in shares]
    sizes = [math.floor(value + 1e-9) for value in exact]  # 1e-9: a whole number that rounding put just below itself
    by_remainder = sorted(range(len(sizes)), key=lambda part: sizes[part] - exact[part])
    for part in by_remainder[: total - sum(sizes)]:
        sizes[part] += 1
    return sizes


class DatasetRef(SpecModel):
    """Which dataset, and how its columns are read."""

    id: str = Field(min_length=1, max_length=128)
    """The dataset's id (`ds_...`); for the library alone, any name."""
    target: str | None = None
    """Table only: the column to predict. Left out: the dataset's own `target`."""
    features: tuple[str, ...] | None = None
    """Table only: the columns to learn from. Left out: all but the target."""
    ignore: tuple[str, ...] = ()
    """Table only: columns to leave out, such as ids."""
    horizon: int = Field(1, ge=1, le=10_000)
    """Forecasting only: how many steps ahead to predict."""
    window: int | None = Field(None, ge=2, le=100_000)
    """Forecasting only: how many past steps the model sees."""

    @field_validator("features")
    @classmethod
    def features_not_empty(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and not value:
            raise ValueError("name at least one feature column, or leave `features` out to use all")
        return value


Balance = Literal["none", "oversample", "undersample", "class_weights"]
