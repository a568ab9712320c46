"""L1 and L2 in closed form: the gradient is added to what backward left, and no graph is built for it.

L = L0 + (l1/n) sum |w| + (l2/2n) sum w^2, n the number of training samples; so L2 equals SGD's weight_decay = l2/n.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def add_penalty_gradient_(weights: Sequence[Tensor], l1: float, l2: float, n: int) -> None:
    """grad += (l2/n) w + (l1/n) sign(w), for weights that have a gradient."""
    trained = [weight for weight in weights if weight.grad is not None]
    gradients = [weight.grad for weight in trained if weight.grad is not None]
    if trained and l2:
        torch._foreach_add_(gradients, trained, alpha=l2 / n)
    if trained and l1:
        torch._foreach_add_(gradients, torch._foreach_sign(trained), alpha=l1 / n)


@torch.no_grad()
def penalty(weights: Sequence[Tensor], l1: float, l2: float, n: int) -> Tensor:
    """(l1/n) sum |w| + (l2/2n) sum w^2 as a tensor on the weights' device; 0 without weights."""
    if not weights:
        return torch.zeros(())
    total = torch.zeros((), device=weights[0].device)
    if l1:
        total = total + l1 / n * torch.stack(torch._foreach_norm(list(weights), 1)).sum()
    if l2:
        total = total + l2 / (2 * n) * torch.stack(torch._foreach_norm(list(weights), 2)).square().sum()
    return total
