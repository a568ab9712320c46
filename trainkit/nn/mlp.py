"""Fully connected networks; the classic one is 784-500-500-10."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from trainkit.nn.activations import build as build_activation
from trainkit.nn.linear import output_head
from trainkit.nn.network import Network
from trainkit.nn.norms import build_norm
from trainkit.spec.models import Activation, Mlp, Norm


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


def dense_block(
    inputs: int, width: int, activation: Activation, norm: Norm = "none", dropout: float = 0.0
) -> nn.Sequential:
    """linear, norm, activation, dropout. Batch norm takes the bias's place: its own shift makes a bias idle."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(linear=nn.Linear(inputs, width, bias=norm != "batch"))
    layer = build_norm(norm, width, image=False)
    if layer is not None:
        layers["norm"] = layer
    layers["activation"] = build_activation(activation)
    if dropout > 0:
        layers["dropout"] = nn.Dropout(dropout)
    return nn.Sequential(layers)
