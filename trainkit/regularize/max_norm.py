"""Max-norm: after each step every unit's incoming weight vector is projected into a ball (Srebro and Shraibman 2005)."""

from __future__ import annotations

import torch
from torch import nn

from trainkit.regularize.weights import weights_of

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@torch.no_grad()
def max_norm_(module: nn.Module, c: float) -> None:
    """Project in place to norm <= c: over all dims but 0 for linear, convolution and recurrent weights, all but 1 for
    transposed convolutions (whose layout is (in, out, ...)). Vectors inside the ball stay bit-identical; biases and
    norm layers are not touched.
    """
    transposed = {id(layer.weight) for layer in module.modules() if isinstance(layer, TRANSPOSED)}
    for weight in weights_of(module):
        # renorm leaves a row inside the ball as it is, bit for bit
        weight.copy_(torch.renorm(weight, p=2, dim=1 if id(weight) in transposed else 0, maxnorm=c))
