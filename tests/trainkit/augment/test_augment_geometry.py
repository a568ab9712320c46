"""Geometry against exact moves: quarter turns, whole pixels, mirrors, and composition against doing it in two steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from trainkit.augment import build, geometry


def images(count: int = 4, channels: int = 3, height: int = 8, width: int = 8) -> Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0))


def once(x: Tensor, *steps: dict[str, object], step: int = 0) -> Tensor:
    return build(steps).apply(x, seed=1, epoch=1, step=step)[0]


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_quarter_turn_is_rot90(quarters: int) -> None:
    x = images()
    turned = geometry.resample(x, geometry.rotation(torch.full((4,), quarters * math.pi / 2)))
    torch.testing.assert_close(turned, torch.rot90(x, quarters, (2, 3)), atol=1e-5, rtol=0)


def test_a_turn_by_some_angle_is_that_of_torchvision() -> None:
    x = images(2, 3, 9, 13)
    turned = geometry.resample(x, geometry.rotation(torch.full((2,), math.radians(25))))
    expected = reference.rotate(x, 25, interpolation=InterpolationMode.BILINEAR)
    torch.testing.assert_close(turned[:, :, 2:-2, 3:-3], expected[:, :, 2:-2, 3:-3], atol=1e-4, rtol=0)


def test_a_translation_by_whole_pixels_is_a_shift_with_zeros_behind() -> None:
    x = images(1, 2, 6, 9)
    moved = geometry.resample(x, geometry.translation(torch.tensor([2.0]), torch.tensor([-1.0])))
    expected = torch.zeros_like(x)
    expected[:, :, :-1, 2:] = x[:, :, 1:, :-2]
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


def test_shear_moves_rows_by_their_distance_from_the_centre() -> None:
    x = images(1, 1, 5, 11)
    moved = geometry.resample(x, geometry.shear(torch.tensor([1.0])))
    for row in range(5):
        shift = row - 2
        expected = torch.zeros(11)
        source = [(column, column + shift) for column in range(11) if 0 <= column + shift < 11]
        for to, origin in source:
            expected[to] = x[0, 0, row, origin]
        torch.testing.assert_close(moved[0, 0, row], expected, atol=1e-5, rtol=0)


def test_composed_maps_are_one_after_the_other() -> None:
    x = images(1, 1, 7, 7)
    turn = geometry.rotation(torch.tensor([math.pi / 2]))
    move = geometry.translation(torch.tensor([1.0]), torch.tensor([2.0]))
    in_two = geometry.resample(geometry.resample(x, turn), move)
    torch.testing.assert_close(geometry.resample(x, geometry.compose(turn, move)), in_two, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "steps",
    [
        [{"kind": "rotate", "degrees": 0}],
        [{"kind": "translate", "fraction": 0}, {"kind": "shear", "degrees": 0}],
        [{"kind": "scale", "range": [1, 1]}],
        [{"kind": "random_resized_crop", "scale": [1, 1], "ratio": [1, 1]}],
        [{"kind": "rotate", "degrees": 0}, {"kind": "horizontal_flip", "p": 0}],
    ],
)
def test_zero_strength_is_the_identity(steps: list[dict[str, object]]) -> None:
    x = images(3, 3, 9, 12)
    torch.testing.assert_close(once(x, *steps), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "axis"), [("horizontal_flip", 3), ("vertical_flip", 2)])
def test_flips_move_whole_pixels_and_stay_exact(kind: str, axis: int) -> None:
    x = images()
    assert torch.equal(once(x, {"kind": kind, "p": 1}), x.flip(axis))
    assert torch.equal(once(x, {"kind": kind, "p": 0}), x)


@pytest.mark.parametrize(("kind", "axis"), [("horizontal_flip", 3), ("vertical_flip", 2)])
def test_a_flip_composed_into_an_affine_map_is_the_same_mirror(kind: str, axis: int) -> None:
    x = images(3, 2, 7, 10)
    still = {"kind": "rotate", "degrees": 0}
    torch.testing.assert_close(once(x, still, {"kind": kind, "p": 1}, still), x.flip(axis), atol=1e-5, rtol=0)


def test_a_flip_with_half_chance_leaves_each_image_itself_or_its_mirror() -> None:
    x = images(200, 1, 3, 4)
    out = once(x, {"kind": "horizontal_flip", "p": 0.5})
    same = (out == x).flatten(1).all(1)
    mirrored = (out == x.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 60 < same.sum() < 140


def test_a_crop_is_a_window_of_the_padded_image() -> None:
    x = images(40, 2, 5, 6) + 0.01
    out = once(x, {"kind": "random_crop", "padding": 2})
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    places = set()
    for index in range(40):
        found = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(out[index], padded[index, :, top : top + 5, left : left + 6])
        ]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 10


def test_a_resized_crop_stays_inside_the_image() -> None:
    out = once(torch.ones(64, 1, 16, 16), {"kind": "random_resized_crop", "scale": [0.2, 0.9]})
    # half a pixel at the edge may blend with the zeros outside, the interior cannot
    torch.testing.assert_close(out[:, :, 1:-1, 1:-1], torch.ones(64, 1, 14, 14), atol=1e-4, rtol=0)


def test_a_scale_of_two_shows_the_middle_half() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    out = once(ramp, {"kind": "scale", "range": [2, 2]})
    torch.testing.assert_close(out[0, 0, 4], 3.5 + (torch.arange(8.0) - 3.5) / 2, atol=1e-5, rtol=0)
