"""RandAugment and TrivialAugment: nothing at magnitude 0, single operations against torchvision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from trainkit.augment import build, policy


def images(channels: int, count: int = 200) -> tuple[Tensor, Tensor]:
    raw = torch.randint(0, 256, (count, channels, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return raw, raw.float() / 255


@pytest.mark.parametrize("channels", [1, 3])
def test_magnitude_zero_changes_nothing(channels: int) -> None:
    _, x = images(channels)
    out, _ = build([{"kind": "rand_augment", "ops": 3, "magnitude": 0}]).apply(x, seed=0, epoch=1, step=0)
    torch.testing.assert_close(out, x, atol=2e-5, rtol=0)


@pytest.mark.parametrize("bits", [4, 5, 6, 7, 8])
def test_posterize_clears_low_bits_as_torchvision_does(bits: int) -> None:
    raw, x = images(3, 10)
    out = policy._posterize(x, torch.full((10,), (8 - bits) / 4))
    torch.testing.assert_close(out, reference.posterize(raw, bits).float() / 255, atol=1e-6, rtol=0)


def test_solarize_turns_values_above_the_threshold() -> None:
    row = torch.tensor([0.1, 0.5, 0.8]).reshape(1, 1, 1, 3)
    torch.testing.assert_close(policy._solarize(row, torch.tensor([-0.4])).flatten(), torch.tensor([0.1, 0.5, 0.2]))
    assert torch.equal(policy._solarize(row, torch.zeros(1)), row)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("step", [{"kind": "trivial_augment"}, {"kind": "rand_augment", "magnitude": 1}])
def test_samples_get_different_operations_and_values_stay_in_range(step: dict[str, object], channels: int) -> None:
    image = images(channels, 1)[1][0]
    out, _ = build([step]).apply(image.expand(64, *image.shape), seed=0, epoch=1, step=0)
    assert out.min() >= 0
    assert out.max() <= 1
    assert len(out.flatten(1).unique(dim=0)) > 20
