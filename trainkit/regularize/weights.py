"""Which parameters are weights: two or more dimensions, outside norm layers. Penalties see only these."""

from __future__ import annotations

from torch import nn
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
