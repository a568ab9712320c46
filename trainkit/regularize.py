"""Penalties and constraints on weights: parameters of two or more dimensions outside norm layers.

L = L0 + l1 sum |w| + (l2/2) sum w^2; `RegularizeSpec.factors` divides the spec's numbers by the number of training
samples. L1 and L2 are in closed form: the gradient is added to what backward left, and no graph is built for it. L1 may
be a proximal step instead, which the optimizer takes after its own. Max-norm projects every unit's incoming weights into
a ball after each step (Srebro and Shraibman 2005).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import Parameter

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
"""Tables of vectors: penalised as weights, but no unit reads through their rows."""


def weights_of(module: nn.Module) -> list[Parameter]:
    """The weights of a module, each once, in the order of `module.modules()`."""
    found: dict[int, Parameter] = {}
    for layer in module.modules():
        if not isinstance(layer, NORMS):
            for parameter in layer.parameters(recurse=False):
                if parameter.ndim >= 2:
                    found.setdefault(id(parameter), parameter)
    return list(found.values())


@torch.no_grad()
def add_penalty_gradient_(weights: Sequence[Tensor], l1: float, l2: float) -> None:
    """grad += l2 w + l1 sign(w), for weights that have a gradient."""
    trained = [weight for weight in weights if weight.grad is not None]
    gradients = [weight.grad for weight in trained if weight.grad is not None]
    if trained and l2:
        torch._foreach_add_(gradients, trained, alpha=l2)
    if trained and l1:
        torch._foreach_add_(gradients, torch._foreach_sign(trained), alpha=l1)


@torch.no_grad()
def soft_threshold_(weights: Sequence[Tensor], threshold: float) -> None:
    """w <- sign(w) max(|w| - threshold, 0), the proximal step of L1 (Daubechies et al. 2004)."""
    # Exactly 0 inside the threshold, and w - threshold or w + threshold outside.
    clamped = torch._foreach_clamp_max(torch._foreach_clamp_min(list(weights), -threshold), threshold)
    torch._foreach_sub_(list(weights), clamped)


@torch.no_grad()
def penalty(weights: Sequence[Tensor], l1: float, l2: float) -> Tensor:
    """l1 sum |w| + (l2/2) sum w^2 as a tensor on the weights' device; 0 without weights."""
    if not weights:
        return torch.zeros(())
    total = torch.zeros((), device=weights[0].device)
    if l1:
        total = total + l1 * torch.stack(torch._foreach_norm(list(weights), 1)).sum()
    if l2:
        total = total + l2 / 2 * torch.stack(torch._foreach_norm(list(weights), 2)).square().sum()
    return total


TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@torch.no_grad()
def max_norm_(module: nn.Module, c: float) -> None:
    """Project the incoming weight vector of each unit to norm <= c, in place.

    A unit's vector is all dims but 0 of linear, convolution and recurrent weights, all but 1 of transposed
    convolutions, whose layout is (in, out, ...). Vectors inside the ball stay bit-identical. Biases, norm layers,
    embeddings and frozen weights are not touched.
    """
    for layer in module.modules():
        if isinstance(layer, NORMS + EMBEDDINGS):
            continue
        for name, weight in layer.named_parameters(recurse=False):
            # By name: position embeddings and class tokens have no units that they lead into.
            if weight.ndim < 2 or "weight" not in name or not weight.requires_grad:
                continue
            if isinstance(layer, TRANSPOSED):
                _project_transposed_(weight, layer.groups, c)
            else:
                # renorm leaves a row inside the ball as it is, bit for bit.
                weight.copy_(torch.renorm(weight, p=2, dim=0, maxnorm=c))


@torch.no_grad()
def max_norm_stacked_(weights: Tensor, bounds: Tensor) -> None:
    """The same for K weights (K, out, in, *kernel) of one shape at once, each with its own c in `bounds` (K,)."""
    norms, c = torch.linalg.vector_norm(weights.flatten(2), dim=2), bounds.unsqueeze(1)
    shrink = torch.where(norms > c, c / (norms + 1e-7), 1.0)  # torch.renorm's own rule
    weights.mul_(shrink.reshape(*norms.shape, *[1] * (weights.ndim - 2)))


def _project_transposed_(weight: Tensor, groups: int, c: float) -> None:
    """(in, out/groups, *kernel): a unit reads the inputs of its own group alone."""
    for part in weight.chunk(groups):
        part.copy_(torch.renorm(part, p=2, dim=1, maxnorm=c))
