"""Preprocessing steps: fitted on the training part alone, saved with the model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from trainkit.spec.base import NonNegative, ShortForm, SpecModel

Per = Literal["auto", "feature", "channel", "pixel"]


class ZeroMean(SpecModel):
    """x - mean(train), per feature (per channel for images, per pixel on request)."""

    kind: Literal["zero_mean"] = "zero_mean"
    per: Per = "auto"
    """Which values share one mean: `auto` = channel for images, feature for everything else."""


class MinMax(SpecModel):
    """(x - min) / (max - min + 1e-8), stretched to `range`."""

    kind: Literal["min_max"] = "min_max"
    range: tuple[float, float] = (0.0, 1.0)
    """The interval that the training part's minimum and maximum are sent to."""
    per: Per = "auto"
    """Which values share one minimum and maximum."""

    @field_validator("range")
    @classmethod
    def range_rises(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError("the range's first number must be below its second, as in [-1, 1]")
        return value


class ZScore(SpecModel):
    """(x - mean) / (std + 1e-8), population standard deviation (ddof 0). One-hot columns of tables stay 0 and 1."""

    kind: Literal["z_score"] = "z_score"
    per: Per = "auto"
    """Which values share one mean and deviation."""


def _whole(value: object) -> object:
    """Return 5.0 as 5; 1.0 stays a fraction."""
    return int(value) if isinstance(value, float) and value > 1 and value.is_integer() else value


Components = Annotated[
    Annotated[int, Field(ge=1, strict=True)] | Annotated[float, Field(gt=0, le=1)] | Literal["all"],
    BeforeValidator(
        _whole,
        json_schema_input_type=Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] | Literal["all"],
    ),
]


class Pca(SpecModel):
    """Projection on the leading eigenvectors of the covariance (ddof 1); each component's largest entry is positive."""

    kind: Literal["pca"] = "pca"
    components: Components = "all"
    """An integer count, a fraction in (0, 1] of the explained variance, or all."""
    solver: Literal["eigh", "svd"] = "eigh"
    """`eigh` of the float64 covariance, or `svd` of the centred data (also for more features than samples)."""


class Whiten(SpecModel):
    """Xc U diag(1/sqrt(lambda + eps)) U^T (zca), or the same without the last U^T (pca)."""

    kind: Literal["whiten"] = "whiten"
    method: Literal["zca", "pca"] = "zca"
    """`zca` stays in the input's axes (images stay images); `pca` rotates into components."""
    eps: NonNegative = 1e-5
    """Added to every eigenvalue; directions of pure rounding noise are dropped, never amplified."""
    solver: Literal["eigh", "svd"] = "eigh"
    """How the eigenvectors are found; both give the same result up to rounding."""


class Impute(SpecModel):
    """Fill missing table values with statistics of the training part."""

    kind: Literal["impute"] = "impute"
    numeric: Literal["mean", "median", "zero"] = "median"
    """What replaces a missing number."""
    categorical: Literal["most_frequent", "category"] = "category"
    """`category`: missing is a category of its own; `most_frequent`: the commonest value of the training part."""


PreprocessStep = Annotated[ZeroMean | MinMax | ZScore | Pca | Whiten | Impute, Field(discriminator="kind"), ShortForm()]
