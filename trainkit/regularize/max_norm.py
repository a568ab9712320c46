"""Max-norm: after each step every unit's incoming weights are projected into a ball (Srebro and Shraibman 2005)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainkit.regularize.weights import EMBEDDINGS, NORMS

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
