"""Softmax or linear regression: one linear layer on the flattened input."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from trainkit.nn.network import Network


def build_linear(input_shape: tuple[int, ...], outputs: int) -> Network:
    """Build z = W x + b with x flattened to (B, d).

    With the multi-class hinge loss and an L2 penalty (1/C of the usual form) this is the linear SVM (Crammer and Singer
    2001).
    """
    size = 1
    for side in input_shape:
        size *= side
    return Network(nn.Sequential(OrderedDict(flatten=nn.Flatten())), output_head(size, outputs))


def output_head(width: int, outputs: int, dropout: float = 0.0) -> nn.Sequential:
    """The standard head: dropout (if any) and one linear layer called `output`."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if dropout > 0:
        layers["dropout"] = nn.Dropout(dropout)
    layers["output"] = nn.Linear(width, outputs)
    return nn.Sequential(layers)
