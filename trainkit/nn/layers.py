"""Layers that the architectures share: activations and norms by name, dense blocks, the standard head."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import nn

from trainkit.spec.models import Activation, Norm

ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "linear": nn.Identity,
}


def build_activation(name: Activation) -> nn.Module:
    """A fresh module; `linear` is the identity."""
    return ACTIVATIONS[name]()


GROUPS = 8
"""Wanted number of groups; a width it does not divide gets the greatest common divisor."""


def build_norm(kind: Norm, channels: int, *, image: bool) -> nn.Module | None:
    """The layer, or None for `none`. `layer` on images normalises a whole sample, with scale and shift per channel."""
    if kind == "batch":
        return nn.BatchNorm2d(channels) if image else nn.BatchNorm1d(channels)
    if kind == "layer":
        return nn.GroupNorm(1, channels) if image else nn.LayerNorm(channels)
    if kind == "group":
        return nn.GroupNorm(math.gcd(channels, GROUPS), channels)
    return None


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


def output_head(width: int, outputs: int, dropout: float = 0.0) -> nn.Sequential:
    """The standard head: dropout (if any) and one linear layer called `output`."""
    return build_head(width, (), outputs, dropout)


def build_head(width: int, hidden: Sequence[int], outputs: int, dropout: float = 0.0) -> nn.Sequential:
    """Hidden relu layers `hidden_1`, `hidden_2` ... (such as [1024]), dropout if any, and the layer called `output`."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, wide in enumerate(hidden, start=1):
        layers[f"hidden_{number}"] = dense_block(width, wide, "relu")
        width = wide
    if dropout > 0:
        layers["dropout"] = nn.Dropout(dropout)
    layers["output"] = nn.Linear(width, outputs)
    return nn.Sequential(layers)
