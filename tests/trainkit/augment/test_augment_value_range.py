"""Every step does to a x + b what it does to x, in the range a low + b .. a high + b, for any number of channels."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from trainkit.augment import build, variants
from trainkit.spec.augment import AugmentStep

KINDS: list[str] = [
    *(step.model_fields["kind"].default for step in get_args(get_args(AugmentStep)[0])),
    "brightness shift",
    "saturation shift",
    "hue scale",
]
"""Every kind of step, and the other modes of those that have two."""
COLOUR = ("saturation", "hue", "saturation shift", "hue scale")
STRONG: dict[str, dict[str, Any]] = {
    "noise": {"std": 0.3},
    "value_shift": {"amount": 0.5},
    "brightness": {"amount": 0.8},
    "contrast": {"amount": 0.8},
    "rand_augment": {"ops": 3, "magnitude": 0.8},
    "horizontal_flip": {"p": 1},
}
"""Amounts that push values against the ends of the range, where a wrong range shows."""
SCALES = {"0..1": (1.0, 0.0), "0..16": (16.0, 0.0), "0..255": (255.0, 0.0), "-1..1": (2.0, -1.0), "other": (4.7, -2.1)}
SIZE = 24


def step_of(kind: str) -> dict[str, Any]:
    name, _, mode = kind.partition(" ")
    return {"kind": name, **STRONG.get(name, {}), **({"mode": mode} if mode else {})}


def unit_images(channels: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Images of the 256 levels that a file of pixels has, both ends of the range among them."""
    levels = torch.randint(0, 256, (SIZE, channels, 9, 11), generator=torch.Generator().manual_seed(channels))
    levels[:, :, 0, 0], levels[:, :, 0, 1] = 0, 255
    return levels.to(dtype) / 255


def applied(x: Tensor, kind: str, ranges: Any) -> tuple[Tensor, Tensor]:
    y = torch.eye(4, dtype=torch.float64)[torch.arange(SIZE) % 4]
    out, soft = build([step_of(kind)], ranges).apply(x, y, seed=5, epoch=2, step=3)
    assert soft is not None
    return out, soft


def refused(kind: str, channels: int, scale: str = "0..1") -> bool:
    return kind in COLOUR and (channels != 3 or scale == "other")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", SCALES)
def test_a_step_does_the_same_on_every_scale(kind: str, scale: str, channels: int) -> None:
    (a, b), x = SCALES[scale], unit_images(channels)
    ranges = [(b, a + b)]
    if refused(kind, channels, scale):
        with pytest.raises(ValueError, match=f"{kind.split()[0]} needs colour images: "):
            applied(a * x + b, kind, ranges)
        return
    expected, soft = applied(x, kind, None)
    if kind.endswith("_augment") and channels == 3 and scale == "other":
        # policies leave saturation out where there are no colours: the reference is another such scale
        expected = (applied(10 * x - 5, kind, [(-5, 5)])[0] + 5) / 10
    out, soft_again = applied(a * x + b, kind, ranges)
    torch.testing.assert_close(out, a * expected + b, atol=1e-6 * a, rtol=0)
    assert torch.equal(soft, soft_again)
    assert out.dtype == torch.float64
    assert b <= out.min() + 1e-6 * a
    assert out.max() <= a + b + 1e-6 * a
    assert not torch.equal(out, a * x + b), "the step does something"


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_augmented_as_bytes(kind: str, channels: int) -> None:
    if refused(kind, channels):
        return
    x = unit_images(channels)
    out, _ = applied((x * 255).round().to(torch.uint8), kind, None)
    assert out.dtype == torch.uint8
    assert (out.double() - 255 * applied(x, kind, None)[0]).abs().max() <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int16])
@pytest.mark.parametrize("kind", KINDS)
def test_the_dtype_stays(kind: str, dtype: torch.dtype) -> None:
    x = (unit_images(3) * 100).to(dtype)
    out, _ = applied(x, kind, [(0, 100)])
    assert out.dtype == dtype
    assert (out.min(), out.max()) >= (0, 0)
    assert out.max() <= 100


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in COLOUR])
def test_channels_of_different_scales_keep_theirs(kind: str) -> None:
    x = unit_images(2)
    low, width = torch.tensor([0.0, 250.0]), torch.tensor([4000.0, 60.0])
    view = (None, slice(None), None, None)
    out, _ = applied(x * width[view] + low[view], kind, [(0, 4000), (250, 310)])
    expected = applied(x, kind, None)[0] * width[view] + low[view]
    torch.testing.assert_close(out, expected, atol=4e-3, rtol=0)


@pytest.mark.parametrize(
    "step", [{"kind": "rotate", "degrees": 180}, {"kind": "translate", "fraction": 0.9}, {"kind": "random_erasing"}]
)
def test_what_is_outside_an_image_is_the_lowest_value(step: dict[str, Any]) -> None:
    x = torch.full((SIZE, 1, 9, 11), 7.0)
    out, _ = build([step], [(-3, 9)]).apply(x, seed=0, epoch=1, step=0)
    assert out.min() == -3
    assert out.max().item() == pytest.approx(7)


def test_a_channel_of_a_single_value_keeps_it() -> None:
    x = torch.cat([unit_images(1), torch.full((SIZE, 1, 9, 11), 5.0)], 1)
    for kind in KINDS:
        if kind not in COLOUR:
            assert (applied(x, kind, [(0, 1), (5, 5)])[0][:, 1] == 5).all(), kind


def test_ranges_must_fit_the_images() -> None:
    x = unit_images(3)
    with pytest.raises(ValueError, match="2 value ranges were given for images of 3 channels"):
        applied(x, "noise", [(0, 1), (0, 1)])
    with pytest.raises(ValueError, match=r"the range of torch\.int32 images is unknown: give `value_ranges`"):
        applied(x.int(), "noise", None)
    with pytest.raises(ValueError, match=r"must be floats to be augmented, these are torch\.int64"):
        build([{"kind": "noise"}]).apply(torch.arange(6).reshape(2, 3), seed=0, epoch=1, step=0)


def test_colour_steps_refuse_channels_of_different_scales() -> None:
    with pytest.raises(ValueError, match=r"different ranges \(0..1, 0..1, 0..9\), so they are not red, green and blue"):
        applied(unit_images(3), "hue", [(0, 1), (0, 1), (0, 9)])


def test_variants_of_an_image_of_0_to_16() -> None:
    image = unit_images(1)[0] * 16
    out = variants(image, [{"kind": "noise", "std": 0.02}], count=5, value_ranges=[(0, 16)])
    assert (out - image).abs().max() > 0.3
    assert (out - image).std().item() == pytest.approx(0.32, rel=0.15)
