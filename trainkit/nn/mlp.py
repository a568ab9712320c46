"""Linear models and fully connected networks."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from trainkit.nn.layers import dense_block, output_head
from trainkit.nn.network import Network
from trainkit.spec.models import Mlp


def build_linear(input_shape: tuple[int, ...], outputs: int) -> Network:
    """Build z = W x + b with x flattened to (B, d).

    With the multi-class hinge loss and an L2 penalty (1/C of the usual form) this is the linear SVM (Crammer and Singer
    2001).
    """
    size = 1
    for side in input_shape:
        size *= side
    return Network(nn.Sequential(OrderedDict(flatten=nn.Flatten())), output_head(size, outputs))


def build_mlp(spec: Mlp, input_shape: tuple[int, ...], outputs: int) -> Network:
    """Blocks of linear, norm, activation and dropout on the flattened input."""
    width = 1
    for side in input_shape:
        width *= side
    body: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    if spec.input_dropout > 0:
        body["input_dropout"] = nn.Dropout(spec.input_dropout)
    for number, hidden in enumerate(spec.hidden, start=1):
        body[f"block_{number}"] = dense_block(width, hidden, spec.activation, spec.norm, spec.dropout)
        width = hidden
    return Network(nn.Sequential(body), output_head(width, outputs))
