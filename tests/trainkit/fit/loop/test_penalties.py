"""Penalties of whole runs, against scikit-learn's Lasso and torch's own weight decay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

import trainkit as tk
from tests.support.fit_data import spec, vectors
from trainkit.data.dataset import Dataset
from trainkit.optim import build_optimizer
from trainkit.spec import parse_spec

SAMPLES, ALPHA = 120, 0.1
SGD_LIKE: list[dict[str, Any]] = [
    {"kind": "sgd", "lr": 0.1},
    {"kind": "sgd", "lr": 0.02, "momentum": 0.9, "nesterov": True},
    {"kind": "ema_momentum", "lr": 0.1},
    {"kind": "heavy_ball", "lr": 0.02},
    {"kind": "nesterov", "lr": 0.02},
]


def sparse_regression() -> tuple[np.ndarray, np.ndarray, Dataset]:
    """y = X w + noise with 5 of 20 weights, correlated inputs among them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(SAMPLES, 20))
    x[:, 7] = 0.7 * x[:, 0] + 0.3 * x[:, 7]
    w = np.zeros(20)
    w[:5] = [3, -2, 1.5, 1, -0.3]
    y = x @ w + 2 + 0.5 * rng.normal(size=SAMPLES)
    return x, y, Dataset.from_arrays(x.astype(np.float32), y.astype(np.float32)[:, None])


def weights(optimizer: dict[str, Any], regularize: dict[str, Any], **changes: Any) -> np.ndarray:
    document = spec(
        {"kind": "linear"},
        task="regression",
        split={"train": 1, "validation": 0, "test": 0},
        target_scaling="none",
        optimizer=optimizer,
        regularize=regularize,
        early_stop=[],
        train={"epochs": 300, "batch_size": SAMPLES, "log_stats": "none", **changes},
    )
    result = tk.fit(document, sparse_regression()[2])
    return result.model.network.head.output.weight.detach().numpy()[0]


@pytest.mark.parametrize("optimizer", SGD_LIKE, ids=str)
@pytest.mark.parametrize("scale", ["mean", "sum"])
def test_l1_gives_the_weights_and_zeros_of_the_lasso(optimizer: dict[str, Any], scale: str) -> None:
    x, y, _ = sparse_regression()
    lasso = Lasso(alpha=ALPHA, tol=1e-8).fit(x, y)  # (1/2n) |y - Xw|^2 + alpha |w|_1: half of ours
    l1 = 2 * ALPHA * (SAMPLES if scale == "mean" else 1)
    found = weights(optimizer, {"l1": l1, "scale": scale})
    assert 0 < (lasso.coef_ == 0).sum() < 20
    np.testing.assert_array_equal(found == 0, lasso.coef_ == 0)
    np.testing.assert_allclose(found, lasso.coef_, atol=1e-4)


def test_l1_in_small_batches_gives_exact_zeros_and_keeps_what_the_lasso_keeps() -> None:
    """A batch's gradient varies around the whole one, so a weight near the edge of the support may be in or out."""
    x, y, _ = sparse_regression()
    lasso = Lasso(alpha=ALPHA, tol=1e-8).fit(x, y)
    found = weights({"kind": "sgd", "lr": 0.02}, {"l1": 2 * ALPHA * SAMPLES}, batch_size=40)
    assert (found[lasso.coef_ != 0] != 0).all()
    assert (found[lasso.coef_ == 0] == 0).sum() >= 10


def test_a_subgradient_comes_near_zero_and_never_is() -> None:
    found = weights({"kind": "sgd", "lr": 0.1}, {"l1": 2 * ALPHA * SAMPLES, "l1_update": "subgradient"})
    assert np.count_nonzero(found) == 20
    assert (np.abs(found) < 0.03).sum() >= 10
    adam = weights({"kind": "adam", "lr": 0.05}, {"l1": 2 * ALPHA * SAMPLES})
    assert np.count_nonzero(adam) == 20, "adaptive optimizers take the subgradient unless told otherwise"
    assert np.count_nonzero(weights({"kind": "adam", "lr": 0.05}, {"l1": 24, "l1_update": "proximal"})) < 20


def test_the_threshold_follows_the_schedule_and_each_groups_rate() -> None:
    one, other = torch.nn.Parameter(torch.tensor([[1.0]])), torch.nn.Parameter(torch.tensor([[1.0]]))
    optimizer = build_optimizer(
        parse_spec(spec({"kind": "linear"}, optimizer={"kind": "heavy_ball", "lr": 0.1, "momentum": 0.5})).optimizer,
        [
            {"params": [one], "name": "body", "proximal_l1": 0.3},
            {"params": [other], "name": "head", "lr": 0.2, "proximal_l1": 0.3},
        ],
    )
    one.grad, other.grad = torch.zeros_like(one), torch.zeros_like(other)
    optimizer.step()
    assert one.item() == pytest.approx(1 - 0.1 / 0.5 * 0.3)
    assert other.item() == pytest.approx(1 - 0.2 / 0.5 * 0.3)
    optimizer.param_groups[0]["lr"] = 0.05
    one.grad, other.grad = torch.zeros_like(one), None
    optimizer.step()
    assert one.item() == pytest.approx(1 - 0.15 / 0.5 * 0.3)
    assert other.item() == pytest.approx(1 - 0.2 / 0.5 * 0.3), "a weight without a gradient stays"


def test_l2_with_scale_sum_is_torchs_weight_decay() -> None:
    """Weights of a run, and those of a loop over torch.optim.SGD(weight_decay=l2)."""
    x, y, _ = sparse_regression()
    found = weights({"kind": "sgd", "lr": 0.1}, {"l2": 0.3, "scale": "sum"})
    linear = torch.nn.Linear(20, 1)
    torch.nn.init.zeros_(linear.weight)
    optimizer = torch.optim.SGD(
        [{"params": [linear.weight], "weight_decay": 0.3}, {"params": [linear.bias], "weight_decay": 0.0}], lr=0.1
    )
    inputs, targets = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
    for _ in range(2000):
        optimizer.zero_grad()
        (linear(inputs)[:, 0] - targets).square().mean().backward()
        optimizer.step()
    np.testing.assert_allclose(found, linear.weight.detach().numpy()[0], atol=1e-4)


def test_l1_leaves_biases_alone() -> None:
    document = spec({"kind": "mlp", "hidden": [6]}, optimizer={"kind": "sgd", "lr": 0.1}, regularize={"l1": 1e6})
    network = tk.fit(document, vectors()).model.network
    assert all((p == 0).all() for p in network.parameters() if p.ndim == 2)
    assert any((p != 0).any() for p in network.parameters() if p.ndim == 1)
