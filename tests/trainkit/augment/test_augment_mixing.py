"""MixUp and CutMix by the distribution of their shares and by the pairing of samples with targets."""

from __future__ import annotations

import pytest
import torch
from scipy import stats  # type: ignore[import-untyped]
from torch import Tensor

from trainkit.augment import build
from trainkit.augment.mixing import beta


def mixed(x: Tensor, y: Tensor | None, **step: object) -> tuple[Tensor, Tensor | None]:
    return build([step]).apply(x, y, seed=0, epoch=1, step=0)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_are_beta_distributed(alpha: float) -> None:
    drawn = beta(alpha, 4000, torch.Generator().manual_seed(0)).double().numpy()
    assert stats.kstest(drawn, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_a_tiny_alpha_leaves_samples_whole() -> None:
    drawn = beta(1e-4, 500, torch.Generator().manual_seed(0))
    assert drawn.isfinite().all()
    assert ((drawn < 1e-3) | (drawn > 1 - 1e-3)).float().mean() > 0.97


@pytest.mark.parametrize("shape", [(300, 1, 2, 2), (300, 5), (300, 4, 3)])
def test_mixup_blends_samples_and_targets_by_the_same_share(shape: tuple[int, ...]) -> None:
    labels = torch.arange(300) % 2
    x = labels.float().reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
    y = torch.nn.functional.one_hot(labels, 2).float()
    out, soft = mixed(x, y, kind="mixup", alpha=1.0)
    assert soft is not None
    torch.testing.assert_close(out, soft[:, 1].reshape(-1, *[1] * (len(shape) - 1)).expand(shape))
    torch.testing.assert_close(soft.sum(1), torch.ones(300))
    # a permutation pairs the samples, so the expectation of the mix is the mean of the batch
    assert out.mean().item() == pytest.approx(0.5, abs=0.06)
    assert len(soft[:, 1].unique()) > 50


def test_cutmix_mixes_targets_by_the_area_that_was_replaced() -> None:
    labels = torch.arange(200) % 2
    x = labels.float()[:, None, None, None].expand(200, 3, 12, 10)
    y = torch.nn.functional.one_hot(labels, 2).float()
    out, soft = mixed(x, y, kind="cutmix")
    assert soft is not None
    torch.testing.assert_close(out.mean((1, 2, 3)), soft[:, 1], atol=1e-5, rtol=0)
    assert ((out == 0) | (out == 1)).all()


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_without_targets_samples_are_mixed_alone(kind: str) -> None:
    x = torch.rand(8, 1, 6, 6)
    out, soft = mixed(x, None, kind=kind, alpha=1.0)
    assert soft is None
    assert out.shape == x.shape
