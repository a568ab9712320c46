"""Losses: z is the raw output, t or y the target, s the sigmoid."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainkit.spec.base import NonNegative, Positive, ShortForm, SpecModel


class CrossEntropy(SpecModel):
    """-log softmax(z)[y]."""

    kind: Literal["cross_entropy"] = "cross_entropy"


class BinaryCrossEntropy(SpecModel):
    """-(t log s(z) + (1-t) log(1-s(z))) over one-hot targets, summed over the classes."""

    kind: Literal["binary_cross_entropy"] = "binary_cross_entropy"


class Hinge(SpecModel):
    """Multi-class hinge (Crammer and Singer): max(0, margin + max_{k != y} z_k - z_y)."""

    kind: Literal["hinge"] = "hinge"
    margin: Positive = 1.0
    """The margin that the true class must win by."""


class Mse(SpecModel):
    """Mean over the outputs of (z - y)^2. On one-hot targets: the textbook mistake that cross entropy fixes."""

    kind: Literal["mse"] = "mse"


class Mae(SpecModel):
    """Mean over the outputs of |z - y|."""

    kind: Literal["mae"] = "mae"


class Huber(SpecModel):
    """Quadratic within delta of the target, linear beyond it."""

    kind: Literal["huber"] = "huber"
    delta: Positive = 1.0
    """Where the quadratic part ends."""


class Focal(SpecModel):
    """-(1 - p_y)^gamma log p_y (Lin et al. 2017)."""

    kind: Literal["focal"] = "focal"
    gamma: NonNegative = 2.0
    """How strongly easy samples are discounted; 0 is cross entropy."""


LossSpec = Annotated[
    CrossEntropy | BinaryCrossEntropy | Hinge | Mse | Mae | Huber | Focal, Field(discriminator="kind"), ShortForm()
]
CLASSIFICATION_LOSSES = ("cross_entropy", "binary_cross_entropy", "hinge", "mse", "focal")
REGRESSION_LOSSES = ("mse", "mae", "huber")
