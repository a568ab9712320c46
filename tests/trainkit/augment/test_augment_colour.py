"""Colour steps at a fixed factor against torchvision."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from trainkit.augment import build, colour
from trainkit.augment.seeding import generator

Adjust = Callable[[Tensor, Tensor], Tensor]


def images(channels: int = 3) -> Tensor:
    x = torch.rand(5, channels, 6, 7, generator=torch.Generator().manual_seed(0))
    x[0, :, 0, 0], x[0, :, 0, 1], x[0, :, 0, 2] = 0.0, 1.0, 0.5  # black, white and grey have no hue
    return x


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
@pytest.mark.parametrize(
    ("ours", "torchvision"),
    [
        (colour.brightness, reference.adjust_brightness),
        (colour.contrast, reference.adjust_contrast),
        (colour.saturation, reference.adjust_saturation),
    ],
    ids=["brightness", "contrast", "saturation"],
)
def test_equals_torchvision(ours: Adjust, torchvision: Callable[[Tensor, float], Tensor], factor: float) -> None:
    x = images()
    torch.testing.assert_close(ours(x, torch.full((5,), factor)), torchvision(x, factor), atol=2e-6, rtol=0)


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.2, 0.5])
def test_hue_equals_torchvision(turn: float) -> None:
    x = images()
    torch.testing.assert_close(colour.hue(x, torch.full((5,), turn)), reference.adjust_hue(x, turn), atol=2e-5, rtol=0)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.5])
def test_a_scaled_hue_is_that_of_colorsys(factor: float) -> None:
    x = images()[:2]
    out = colour.scale_hue(x, torch.full((2,), factor))
    for scaled, given in zip(out.permute(0, 2, 3, 1).reshape(-1, 3), x.permute(0, 2, 3, 1).reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*given.tolist())
        assert scaled.tolist() == pytest.approx(colorsys.hsv_to_rgb(h * factor % 1.0, s, v), abs=2e-5)


@pytest.mark.parametrize("shift", [-1.0, -0.3, 0.0, 0.25, 1.0])
def test_an_added_brightness_is_the_sum_within_the_range(shift: float) -> None:
    x = images(2)
    out = colour.shift_brightness(x, torch.full((5,), shift))
    assert out.flatten().tolist() == pytest.approx(
        [min(max(v + shift, 0.0), 1.0) for v in x.flatten().tolist()], abs=1e-6
    )


@pytest.mark.parametrize("shift", [-1.0, -0.3, 0.0, 0.25, 1.0])
def test_an_added_saturation_is_that_of_colorsys(shift: float) -> None:
    x = images()[:2]
    out = colour.shift_saturation(x, torch.full((2,), shift))
    for shifted, given in zip(
        out.permute(0, 2, 3, 1).reshape(-1, 3), x.permute(0, 2, 3, 1).reshape(-1, 3), strict=True
    ):
        h, s, v = colorsys.rgb_to_hsv(*given.tolist())
        expected = colorsys.hsv_to_rgb(h, min(max(s + shift, 0.0), 1.0) if s > 0 else 0.0, v)
        assert shifted.tolist() == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("kind", ["brightness", "saturation"])
def test_the_mode_of_a_step_is_followed_with_one_number_for_each_sample(kind: str) -> None:
    x = images()
    for mode, reference_step in {
        "shift": {"brightness": colour.shift_brightness, "saturation": colour.shift_saturation}[kind],
        "scale": {"brightness": colour.brightness, "saturation": colour.saturation}[kind],
    }.items():
        out, _ = build([{"kind": kind, "amount": 0.4, "mode": mode}]).apply(x, seed=3, epoch=1, step=0)
        drawn = (torch.rand(5, generator=generator(3, 1, 0)) * 2 - 1) * 0.4 + (mode == "scale")
        torch.testing.assert_close(out, reference_step(x, drawn), atol=1e-5, rtol=0)


def test_the_mode_of_a_hue_step_is_followed() -> None:
    step = {"kind": "hue", "amount": 0.5}
    shifted, scaled = (
        build([{**step, "mode": mode}]).apply(images(), seed=0, epoch=1, step=0)[0] for mode in ("shift", "scale")
    )
    red = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1).expand(8, 3, 2, 2)
    assert not torch.equal(shifted, scaled)
    assert torch.equal(build([{**step, "mode": "scale"}]).apply(red, seed=0, epoch=1, step=0)[0], red), "red has hue 0"


def test_each_sample_has_its_own_factor() -> None:
    x, factors = images(), torch.tensor([0.2, 0.5, 1.0, 1.3, 1.8])
    out = colour.contrast(x, factors)
    for index, factor in enumerate(factors.tolist()):
        torch.testing.assert_close(out[index], reference.adjust_contrast(x[index], factor), atol=2e-6, rtol=0)


@pytest.mark.parametrize("kind", ["brightness", "contrast"])
def test_grey_images_have_brightness_and_contrast(kind: str) -> None:
    x = images(1)
    out, _ = build([{"kind": kind, "amount": 0.5}]).apply(x, seed=0, epoch=1, step=0)
    assert out.min() >= 0
    assert out.max() <= 1
    assert not torch.equal(out, x)


@pytest.mark.parametrize("kind", ["saturation", "hue"])
def test_colour_steps_refuse_grey_images(kind: str) -> None:
    with pytest.raises(ValueError, match=f"{kind} needs colour images: these images have 1 channel, not red"):
        build([{"kind": kind}]).apply(images(1), seed=0, epoch=1, step=0)


@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation", "hue"])
def test_zero_strength_is_the_identity(kind: str) -> None:
    x = images()
    out, _ = build([{"kind": kind, "amount": 0}]).apply(x, seed=0, epoch=1, step=0)
    torch.testing.assert_close(out, x, atol=2e-6, rtol=0)
