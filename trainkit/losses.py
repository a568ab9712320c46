"""Losses as per-sample values, so that weighting, averaging and reporting stay the caller's.

Every loss takes raw outputs z (B, K) and returns (B,). A classification target is class indices (B,) int64 or soft
labels (B, K) that sum to 1 (mixed samples); a regression target is values (B, K), or (B,) when K is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from trainkit.spec.losses import LossSpec

Loss = Callable[[Tensor, Tensor], Tensor]
"""loss(z (B, K), target) -> (B,)"""


def build(spec: LossSpec, *, outputs: int, label_smoothing: float = 0.0) -> Loss:
    """The named loss for models of `outputs` outputs.

    Raises ValueError for label smoothing with a loss that does not define it, and for a hinge over a single output.
    """
    if label_smoothing and spec.kind not in ("cross_entropy", "focal"):
        raise ValueError(f"label smoothing is defined for cross_entropy and focal, not for {spec.kind}: set it to 0")
    match spec.kind:
        case "cross_entropy":
            return partial(cross_entropy, label_smoothing=label_smoothing)
        case "binary_cross_entropy":
            return binary_cross_entropy
        case "hinge":
            if outputs < 2:
                raise ValueError("the multi-class hinge compares classes: it needs at least 2 outputs")
            return partial(hinge, margin=spec.margin)
        case "mse":
            return mse
        case "mae":
            return mae
        case "huber":
            return partial(huber, delta=spec.delta)
        case "focal":
            return partial(focal, gamma=spec.gamma, label_smoothing=label_smoothing)


def cross_entropy(z: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """-sum_k t_k log softmax(z)_k with t' = (1 - s) t + s/K."""
    return F.cross_entropy(z, target, reduction="none", label_smoothing=label_smoothing)


def binary_cross_entropy(z: Tensor, target: Tensor) -> Tensor:
    """-sum_k (t_k log s(z_k) + (1 - t_k) log(1 - s(z_k))), s the logistic function."""
    return F.binary_cross_entropy_with_logits(z, _labels(z, target), reduction="none").sum(1)


def hinge(z: Tensor, target: Tensor, *, margin: float = 1.0) -> Tensor:
    """max(0, margin + max_{k != y} z_k - z_y) (Crammer and Singer 2001); soft labels give the expected loss."""
    best, place = z.topk(2, dim=1)
    is_best = torch.arange(z.shape[1], device=z.device) == place[:, :1]
    rival = torch.where(is_best, best[:, 1:], best[:, :1])
    return (_labels(z, target) * F.relu(margin + rival - z)).sum(1)


def mse(z: Tensor, target: Tensor) -> Tensor:
    """Mean over the outputs of (z - y)^2; class indices become one-hot rows."""
    indices = not target.is_floating_point() and z.shape[1] > 1 and target.ndim == 1
    return (z - (_labels(z, target) if indices else _values(z, target))).square().mean(1)


def mae(z: Tensor, target: Tensor) -> Tensor:
    """Mean over the outputs of |z - y|."""
    return (z - _values(z, target)).abs().mean(1)


def huber(z: Tensor, target: Tensor, *, delta: float = 1.0) -> Tensor:
    """Mean over the outputs of r^2/2 for |r| <= delta, else delta (|r| - delta/2), with r = z - y (Huber 1964)."""
    return F.huber_loss(z, _values(z, target), reduction="none", delta=delta).mean(1)


def focal(z: Tensor, target: Tensor, *, gamma: float = 2.0, label_smoothing: float = 0.0) -> Tensor:
    """-sum_k t_k (1 - p_k)^gamma log p_k, p = softmax(z) (Lin et al. 2017)."""
    t = _labels(z, target)
    if label_smoothing:
        t = (1 - label_smoothing) * t + label_smoothing / z.shape[1]
    log_p = F.log_softmax(z, dim=1)
    # expm1 keeps 1 - p exact where p is near 1; the floor keeps the slope of x^gamma finite at 0 for gamma < 1.
    rest = (-torch.expm1(log_p)).clamp_min(torch.finfo(z.dtype).tiny)
    return -(t * rest.pow(gamma) * log_p).sum(1)


def _labels(z: Tensor, target: Tensor) -> Tensor:
    """Soft labels (B, K): as given, or one-hot rows of class indices."""
    if target.ndim == 2:
        return target.to(z.dtype)
    return F.one_hot(target, z.shape[1]).to(z.dtype)


def _values(z: Tensor, target: Tensor) -> Tensor:
    """Values in z's shape and type. A (B,) target against (B, 1) outputs would broadcast to (B, B) unnoticed."""
    return target.to(z.dtype).reshape(z.shape)
