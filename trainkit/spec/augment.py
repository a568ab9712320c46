"""Augmentation of training samples: drawn per sample, seeded by (seed, epoch, step).

Images: 0 is the low and 1 the high end of the dataset's own range of values (`DatasetFacts.value_ranges`), whatever that
is. So the same spec does the same to images of 0..1, 0..16, 0..255 and -1..1, and no value leaves the range.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from trainkit.spec.base import NonNegative, Positive, Probability, ShortForm, SpecModel

Amount = Annotated[float, Field(ge=0, le=1)]


def _in_order(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("the smaller number comes first")
    return value


Areas = Annotated[tuple[Positive, Annotated[float, Field(gt=0, le=1)]], AfterValidator(_in_order)]
Ratios = Annotated[tuple[Positive, Positive], AfterValidator(_in_order)]


class Rotate(SpecModel):
    """Rotate by an angle drawn from [-degrees, degrees]."""

    kind: Literal["rotate"] = "rotate"
    degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Largest angle, in degrees."""


class Translate(SpecModel):
    """Shift by up to `fraction` of width and height."""

    kind: Literal["translate"] = "translate"
    fraction: Amount = 0.1
    """Largest shift as a fraction of the side."""


class Scale(SpecModel):
    """Zoom by a factor drawn from `range`."""

    kind: Literal["scale"] = "scale"
    range: tuple[Positive, Positive] = (0.9, 1.1)
    """Smallest and largest factor."""

    @field_validator("range")
    @classmethod
    def rises(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("the smaller factor comes first, as in [0.9, 1.1]")
        return value


class Shear(SpecModel):
    """Shear along x by an angle drawn from [-degrees, degrees]."""

    kind: Literal["shear"] = "shear"
    degrees: Annotated[float, Field(ge=0, le=80)] = 10.0
    """Largest shear angle, in degrees."""


class HorizontalFlip(SpecModel):
    """Mirror left to right with probability p."""

    kind: Literal["horizontal_flip"] = "horizontal_flip"
    p: Probability = 0.5
    """Probability for each sample."""


class VerticalFlip(SpecModel):
    """Mirror top to bottom with probability p."""

    kind: Literal["vertical_flip"] = "vertical_flip"
    p: Probability = 0.5
    """Probability for each sample."""


class RandomCrop(SpecModel):
    """Pad by `padding` pixels of the lowest value on every side, then cut a window of the original size at a random place."""

    kind: Literal["random_crop"] = "random_crop"
    padding: Annotated[int, Field(ge=1, le=256)] = 4
    """Pixels of padding on each side."""


class RandomResizedCrop(SpecModel):
    """Cut a window of random area and aspect ratio and resize it to the original size."""

    kind: Literal["random_resized_crop"] = "random_resized_crop"
    scale: Areas = (0.5, 1.0)
    """Smallest and largest area, as fractions of the image."""
    ratio: Ratios = (0.75, 4 / 3)
    """Smallest and largest aspect ratio (width over height)."""


class Brightness(SpecModel):
    """Scale: low + f (x - low), f from [1-amount, 1+amount]; shift: x + d (high - low), d from [-amount, amount]."""

    kind: Literal["brightness"] = "brightness"
    amount: Amount = 0.2
    """Half-width of the interval of f or d, one number for each sample."""
    mode: Literal["scale", "shift"] = "scale"
    """`scale` multiplies, as torchvision does; `shift` adds, and ends at the range. value_shift adds to single channels."""


class Contrast(SpecModel):
    """Blend with the sample's own mean grey, factor drawn from [1-amount, 1+amount]."""

    kind: Literal["contrast"] = "contrast"
    amount: Amount = 0.2
    """Half-width of the factor's interval."""


class Saturation(SpecModel):
    """Scale: grey + f (x - grey), f from [1-amount, 1+amount]; shift: d from [-amount, amount] is added to S of HSV."""

    kind: Literal["saturation"] = "saturation"
    amount: Amount = 0.2
    """Half-width of the interval of f or d, one number for each sample; colour images only."""
    mode: Literal["scale", "shift"] = "scale"
    """`scale` blends with the grey image, as torchvision does; `shift` sets S to S + d within [0, 1], grey stays grey."""


class Hue(SpecModel):
    """Turn the hue by a fraction of the circle from [-amount, amount], or scale it; colour images only."""

    kind: Literal["hue"] = "hue"
    amount: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Largest turn (0.5 is half the circle), or half-width of the factor's interval."""
    mode: Literal["shift", "scale"] = "shift"
    """`shift` adds to the hue; `scale` multiplies it by a factor drawn from [1-amount, 1+amount]."""


class Noise(SpecModel):
    """Add Gaussian noise to every value of images, tables, arrays or sequences."""

    kind: Literal["noise"] = "noise"
    std: NonNegative = 0.02
    """Standard deviation: of images a share of their range of values (0.02 of 0..255 is 5.1), else as the values are."""


class ValueShift(SpecModel):
    """Add one number drawn from [-amount, amount] to each channel of a sample."""

    kind: Literal["value_shift"] = "value_shift"
    amount: NonNegative = 0.1
    """Largest shift, as a share of the range of values."""


class RandomErasing(SpecModel):
    """Set a rectangle to the lowest value, of random place and shape, with probability p."""

    kind: Literal["random_erasing"] = "random_erasing"
    p: Probability = 0.5
    """Probability for each sample."""
    scale: Areas = (0.02, 0.2)
    """Smallest and largest area, as fractions of the image."""
    ratio: Ratios = (0.3, 3.3)
    """Smallest and largest aspect ratio."""


class RandAugment(SpecModel):
    """For each sample apply `ops` operations drawn from one list at one magnitude (Cubuk et al. 2020)."""

    kind: Literal["rand_augment"] = "rand_augment"
    ops: Annotated[int, Field(ge=1, le=8)] = 2
    """How many operations a sample gets."""
    magnitude: Amount = 0.3
    """Strength from 0 (nothing) to 1 (strongest)."""


class TrivialAugment(SpecModel):
    """For each sample apply one operation at one random strength (Mueller and Hutter 2021)."""

    kind: Literal["trivial_augment"] = "trivial_augment"


class MixUp(SpecModel):
    """x = t*x_i + (1-t)*x_j, the same for the targets, t from Beta(alpha, alpha) per batch pair."""

    kind: Literal["mixup"] = "mixup"
    alpha: Positive = 0.2
    """Both parameters of the Beta distribution."""


class CutMix(SpecModel):
    """Paste a rectangle of x_j into x_i and mix the targets by area; t from Beta(alpha, alpha)."""

    kind: Literal["cutmix"] = "cutmix"
    alpha: Positive = 1.0
    """Both parameters of the Beta distribution."""


AugmentStep = Annotated[
    Rotate
    | Translate
    | Scale
    | Shear
    | HorizontalFlip
    | VerticalFlip
    | RandomCrop
    | RandomResizedCrop
    | Brightness
    | Contrast
    | Saturation
    | Hue
    | Noise
    | ValueShift
    | RandomErasing
    | RandAugment
    | TrivialAugment
    | MixUp
    | CutMix,
    Field(discriminator="kind"),
    ShortForm(),
]
