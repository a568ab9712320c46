"""Noise, shifts and erased rectangles by their moments and areas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainkit.augment import build
from trainkit.augment.pixel import rectangles


def once(x: Tensor, **step: object) -> Tensor:
    return build([step]).apply(x, seed=0, epoch=1, step=0)[0]


@pytest.mark.parametrize("shape", [(50, 40), (20, 10, 10)])
def test_noise_on_tables_and_sequences_is_not_clipped(shape: tuple[int, ...]) -> None:
    x = torch.full(shape, 5.0)
    change = once(x, kind="noise", std=0.5) - x
    assert change.std().item() == pytest.approx(0.5, rel=0.06)
    assert change.mean().item() == pytest.approx(0, abs=0.05)
    assert torch.equal(once(x, kind="noise", std=0), x)


def test_noise_on_images_stays_in_range() -> None:
    out = once(torch.rand(8, 1, 10, 10, generator=torch.Generator().manual_seed(0)), kind="noise", std=1.0)
    assert (out.min(), out.max()) == (0, 1)


def test_a_value_shift_is_one_number_for_each_channel_of_a_sample() -> None:
    x = torch.full((30, 3, 4, 4), 0.5)
    change = once(x, kind="value_shift", amount=0.2) - x
    torch.testing.assert_close(change, change[:, :, :1, :1].expand_as(change))
    assert change.abs().max() <= 0.2 + 1e-6
    assert len(change[:, :, 0, 0].unique()) > 80


def test_erased_areas_follow_the_scale_and_only_in_chosen_samples() -> None:
    x = torch.ones(400, 2, 40, 40)
    out = once(x, kind="random_erasing", p=0.5, scale=[0.1, 0.2], ratio=[0.5, 2.0])
    erased = (out == 0).float().mean((1, 2, 3))
    chosen = erased > 0
    assert 150 < chosen.sum() < 250
    assert erased[chosen].min() > 0.09
    assert erased[chosen].max() < 0.215
    assert erased[chosen].mean().item() == pytest.approx(0.15, abs=0.01)
    assert torch.equal(out[~chosen], x[~chosen])


def test_no_chance_of_erasing_is_the_identity() -> None:
    x = torch.rand(4, 1, 6, 6)
    assert torch.equal(once(x, kind="random_erasing", p=0), x)


def test_rectangles_report_the_share_that_they_cover() -> None:
    generator = torch.Generator().manual_seed(0)
    area = torch.linspace(0, 1, 50)
    masks, share = rectangles(50, (9, 14), area, torch.full((50,), 14 / 9), generator)
    torch.testing.assert_close(masks.float().mean((1, 2)), share)
    assert masks[-1].all()
    for mask in masks:
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert rows * columns == mask.sum()
