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

_STEPS: TypeAdapter[Any] = TypeAdapter(list[AugmentStep])


class Augmenter:
    """Random changes of training samples, drawn for each sample and determined by (seed, epoch, step)."""

    def __init__(self, steps: Sequence[Any]) -> None:
        self.steps = tuple(steps)
        self.mixes = any(isinstance(step, MixUp | CutMix) for step in self.steps)

    @torch.no_grad()
    def apply(
        self, x: Tensor, y: Tensor | None = None, *, seed: int, epoch: int, step: int
    ) -> tuple[Tensor, Tensor | None]:
        """Return augmented copies of x: images (B, C, H, W) in [0, 1], or (B, d), or (B, T, F).

        y (B, K) are soft targets, or (B, k) numbers; only mixup and cutmix change them. Raises ValueError for colour steps
        on images that are not of three channels, and for steps on images when x is none.
        """
        if x.ndim != 4:
            self._check_steps_for(x)
        random = generator(seed, epoch, step)
        for geometric, group in groupby(self.steps, key=lambda s: isinstance(s, geometry.AFFINE + geometry.FLIPS)):
            if geometric:
                x = _apply_geometric(x, list(group), random)
                continue
            for step_spec in group:
                if isinstance(step_spec, MixUp):
                    x, y = mixing.mixup(x, y, step_spec.alpha, random)
                elif isinstance(step_spec, CutMix):
                    x, y = mixing.cutmix(x, y, step_spec.alpha, random)
                else:
                    x = _apply_step(step_spec, x, random)
        return x, y

    def _check_steps_for(self, x: Tensor) -> None:
        # broadcasting would let some steps pass with a wrong shape
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


def _apply_step(step: Any, x: Tensor, random: torch.Generator) -> Tensor:
    count, image = len(x), x.ndim == 4
    match step:
        case RandomCrop(padding=padding):
            return geometry.crop(x, padding, random)
        case Brightness(amount=amount):
            return colour.brightness(x, uniform(count, 1 - amount, 1 + amount, random))
        case Contrast(amount=amount):
            return colour.contrast(x, uniform(count, 1 - amount, 1 + amount, random))
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
            return policy.apply_policy(x, ops, magnitude, random)
        case TrivialAugment():
            return policy.apply_policy(x, 1, None, random)
    raise TypeError(f"{step.kind} is no augmentation step")


def build(steps: Sequence[Any]) -> Augmenter:
    """An augmenter of spec models or dicts such as `{"kind": "rotate", "degrees": 20}`."""
    return Augmenter(_STEPS.validate_python(list(steps)))


def variants(image: Tensor, steps: Sequence[Any], count: int = 20, seed: int = 0) -> Tensor:
    """(count, C, H, W) augmented copies of an image (C, H, W) with values in [0, 1]."""
    return build(steps).apply(image.expand(count, *image.shape).clone(), seed=seed, epoch=1, step=0)[0]
