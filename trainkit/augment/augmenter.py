"""The augmenter: the steps of a spec, applied in order to whole batches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from trainkit.augment import colour, geometry, mixing, pixel, policy
from trainkit.augment.seeding import generator, uniform
from trainkit.augment.unit_scale import UnitScale
from trainkit.spec.augment import (
    AugmentStep,
    Brightness,
    Contrast,
    CutMix,
    Hue,
    MixUp,
    Noise,
    RandAugment,
    RandomCrop,
    RandomErasing,
    Saturation,
    TrivialAugment,
    ValueShift,
)
from trainkit.spec.value_range import ValueRange, why_not_colour

_STEPS: TypeAdapter[Any] = TypeAdapter(list[AugmentStep])


class Augmenter:
    """Random changes of training samples, drawn for each sample and determined by (seed, epoch, step).

    `value_ranges` are the (low, high) of the channels of images, or one for all. Amounts are shares of high - low, what
    is outside an image is low, and no value leaves the range. Left out: [0, 1], and 0..255 for uint8.
    """

    def __init__(self, steps: Sequence[Any], value_ranges: Sequence[ValueRange] | None = None) -> None:
        self.steps = tuple(steps)
        self.value_ranges = None if value_ranges is None else tuple((float(a), float(b)) for a, b in value_ranges)
        self.mixes = any(isinstance(step, MixUp | CutMix) for step in self.steps)

    @torch.no_grad()
    def apply(
        self, x: Tensor, y: Tensor | None = None, *, seed: int, epoch: int, step: int
    ) -> tuple[Tensor, Tensor | None]:
        """Return augmented copies of x, of its dtype: images (B, C, H, W), or floats (B, d) or (B, T, F).

        y (B, K) are soft targets, or (B, k) numbers; only mixup and cutmix change them. Raises ValueError for steps on
        images when x is none, for colour steps on images that are no colour images, and for ranges that do not fit x.
        """
        if not self.steps:
            return x, y
        random = generator(seed, epoch, step)
        if x.ndim != 4:
            self._check_steps_for(x)
            return self._apply(x, y, random, colour_image=False)
        scale = UnitScale(x, self.value_ranges)
        no_colour = why_not_colour(x.shape[1], scale.ranges)
        for one in self.steps:
            if no_colour and isinstance(one, Saturation | Hue):
                raise ValueError(f"{one.kind} needs colour images: {no_colour}")
        u, y = self._apply(scale.to_unit(x), y, random, colour_image=no_colour is None)
        return scale.from_unit(u), y

    def _apply(
        self, x: Tensor, y: Tensor | None, random: torch.Generator, *, colour_image: bool
    ) -> tuple[Tensor, Tensor | None]:
        for geometric, group in groupby(self.steps, key=lambda s: isinstance(s, geometry.AFFINE + geometry.FLIPS)):
            if geometric:
                x = _apply_geometric(x, list(group), random)
                continue
            for step in group:
                if isinstance(step, MixUp):
                    x, y = mixing.mixup(x, y, step.alpha, random)
                elif isinstance(step, CutMix):
                    x, y = mixing.cutmix(x, y, step.alpha, random)
                else:
                    x = _apply_step(step, x, random, colour_image)
        return x, y

    def _check_steps_for(self, x: Tensor) -> None:
        # broadcasting would let some steps pass with a wrong shape
        if not x.is_floating_point():
            raise ValueError(f"samples that are no images must be floats to be augmented, these are {x.dtype}")
        for step in self.steps:
            if not isinstance(step, Noise | MixUp):
                raise ValueError(
                    f"{step.kind} is for images (B, C, H, W), these samples are of shape {tuple(x.shape)}; "
                    "noise and mixup work on any samples"
                )


def _apply_geometric(x: Tensor, steps: list[Any], random: torch.Generator) -> Tensor:
    if not any(isinstance(step, geometry.AFFINE) for step in steps):
        for step in steps:
            x = geometry.flip(step, x, random)  # flips alone need no resampling
        return x
    size = (x.shape[2], x.shape[3])
    maps = geometry.draw(steps[0], len(x), size, random)
    for step in steps[1:]:
        maps = geometry.compose(maps, geometry.draw(step, len(x), size, random))
    return geometry.resample(x, maps)


def _apply_step(step: Any, x: Tensor, random: torch.Generator, colour_image: bool) -> Tensor:
    """x are samples that are no images, or images on the scale of `UnitScale`."""
    count, image = len(x), x.ndim == 4
    match step:
        case RandomCrop(padding=padding):
            return geometry.crop(x, padding, random)
        case Brightness(amount=amount, mode="shift"):
            return colour.shift_brightness(x, uniform(count, -amount, amount, random))
        case Brightness(amount=amount):
            return colour.brightness(x, uniform(count, 1 - amount, 1 + amount, random))
        case Contrast(amount=amount):
            return colour.contrast(x, uniform(count, 1 - amount, 1 + amount, random))
        case Saturation(amount=amount, mode="shift"):
            return colour.shift_saturation(x, uniform(count, -amount, amount, random))
        case Saturation(amount=amount):
            return colour.saturation(x, uniform(count, 1 - amount, 1 + amount, random))
        case Hue(amount=amount, mode="scale"):
            return colour.scale_hue(x, uniform(count, 1 - amount, 1 + amount, random))
        case Hue(amount=amount):
            return colour.hue(x, uniform(count, -amount, amount, random))
        case Noise(std=std):
            noisy = pixel.noise(x, std, random)
            return noisy.clamp(0, 1) if image else noisy
        case ValueShift(amount=amount):
            return pixel.value_shift(x, amount, random).clamp(0, 1)
        case RandomErasing():
            return pixel.random_erasing(x, step, random)
        case RandAugment(ops=ops, magnitude=magnitude):
            return policy.apply_policy(x, ops, magnitude, random, colour_image)
        case TrivialAugment():
            return policy.apply_policy(x, 1, None, random, colour_image)
    raise TypeError(f"{step.kind} is no augmentation step")


def build(steps: Sequence[Any], value_ranges: Sequence[ValueRange] | None = None) -> Augmenter:
    """An augmenter of spec models or dicts such as `{"kind": "rotate", "degrees": 20}`."""
    return Augmenter(_STEPS.validate_python(list(steps)), value_ranges)


def variants(
    image: Tensor,
    steps: Sequence[Any],
    count: int = 20,
    seed: int = 0,
    value_ranges: Sequence[ValueRange] | None = None,
) -> Tensor:
    """(count, C, H, W) augmented copies of an image (C, H, W), of its dtype."""
    augmenter = build(steps, value_ranges)
    return augmenter.apply(image.expand(count, *image.shape).clone(), seed=seed, epoch=1, step=0)[0]
