"""How samples are divided into training, validation and test parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from trainkit.spec.base import Fraction, Seed, SpecModel

MAX_SHARE = 1e9
"""Beyond every number of samples; sums and products of shares stay finite."""


class SplitSpec(SpecModel):
    """Ratios of any scale, normalised to sum 1; sizes by largest remainder, so they add up to n.

    `"8:2"` is train:test, `"8:2:2.5"` is train:validation:test (.64/.16/.20). A dataset that ships its own
    parts keeps them unless `use_predefined` is false.
    """

    train: float = Field(8.0, gt=0, le=MAX_SHARE)
    """Share of the training part, on any scale."""
    validation: float = Field(1.0, ge=0, le=MAX_SHARE)
    """Share of the validation part; 0 means none, and then no early stopping on validation metrics."""
    test: float = Field(1.0, ge=0, le=MAX_SHARE)
    """Share of the test part; 0 means none."""
    stratify: bool = True
    """Keep the class proportions in every part (classification only)."""
    seed: Seed = 0
    """Seed of the shuffle that precedes the cut."""
    use_predefined: bool = True
    """Keep the parts that the dataset itself ships (folders train/val/test, a split column, X_train ...)."""
    subsample: Fraction | None = None
    """Train on this random fraction of the training part; validation and test stay whole."""
    duplicates: Literal["keep", "drop"] = "keep"
    """`drop`: training goes without exact copies of held-out samples, and validation without those of test samples."""
    folds: int | None = Field(None, ge=2, le=1000)
    """Cross-validation: cut all samples but the test part into so many folds; one validates, the others train.

    The folds are those of scikit-learn's StratifiedKFold(folds, shuffle=True, random_state=resample_seed) of these
    samples in their order, or KFold's without `stratify` or classes.
    """
    fold: int | None = Field(None, ge=0)
    """Which of the folds is the validation part, from 0 on."""
    resample_seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Hold the test part out first (the shipped one, or one drawn by `seed`); draw training and validation by this seed.

    Without `folds` the draw is scikit-learn's StratifiedShuffleSplit or ShuffleSplit. Left out: `seed` with folds.
    """

    @model_validator(mode="after")
    def fold_is_one_of_them(self) -> SplitSpec:
        if (self.folds is None) != (self.fold is None):
            raise ValueError("`folds` and `fold` belong together: how many there are, and which one validates")
        if self.folds is not None and self.fold is not None:
            if self.fold >= self.folds:
                raise ValueError(f"with {self.folds} folds, `fold` is 0 to {self.folds - 1}")
            if self.resample_seed is None and self.seed >= 2**32:
                raise ValueError("folds are drawn by scikit-learn's rule: give a `resample_seed` below 2**32")
        return self

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

    @property
    def resamples(self) -> bool:
        """Whether the test part is held out first, and the rest drawn anew into training and validation."""
        return self.folds is not None or self.resample_seed is not None

    def sizes(self, total: int, shipped: Mapping[str, int] | None = None) -> tuple[int, int, int]:
        """Samples in (train, validation, test) of `total`; `shipped`: sizes of the parts that the dataset ships."""
        kept = shipped if shipped and self.use_predefined else None
        if not self.resamples and kept is None:
            train, validation, test = part_sizes(total, self.fractions)
            return train, validation, test
        test = (kept or {}).get("test", 0)
        if self.resamples:
            rest, test = (total - test, test) if test else part_sizes(total, (self.train + self.validation, self.test))
            if self.folds is not None and self.fold is not None:
                held = rest // self.folds + (self.fold < rest % self.folds)
                return rest - held, held, test
            train, validation = part_sizes(rest, (self.train, self.validation))
            return train, validation, test
        assert kept is not None
        train, validation = kept.get("train", 0), kept.get("validation", 0)
        if validation == 0 and self.validation > 0:
            train, validation = part_sizes(train, (self.train, self.validation))
        return train, validation, test


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


DatasetId = Annotated[str, Field(min_length=1, max_length=300)]


class DatasetRef(SpecModel):
    """Which dataset, and how its columns are read."""

    id: DatasetId
    """The dataset: its id, `name` (the newest version), `name:version` or `name@alias`; for the library alone, any name."""
    target: str | None = None
    """Table only: the column to predict. Left out: the dataset's own `target`."""
    features: tuple[str, ...] | None = None
    """Table only: the columns to learn from. Left out: all but the target."""
    ignore: tuple[str, ...] = ()
    """Table only: columns to leave out, such as ids."""
    missing_target: Literal["auto", "leave_out", "refuse"] = "auto"
    """Table only: rows without a value in the target column are left out of all parts, or the job is refused; auto: left
    out, unless they are more than half of the rows."""
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
ClassWeights = dict[str, Annotated[float, Field(gt=0, le=1e9)]]
"""Class name -> weight of its samples in the loss."""
BalanceSpec = Annotated[
    Annotated[Balance, Tag("a method")] | Annotated[ClassWeights, Tag("class -> weight")],
    # so that a wrong weight is not also reported as a wrong method; no class has the name of a tag
    Discriminator(lambda value: "class -> weight" if isinstance(value, dict) else "a method"),
]
