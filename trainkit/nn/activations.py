"""Activation functions by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from trainkit.spec.models import Activation

BUILDERS: dict[Activation, Callable[[], nn.Module]] = {
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


def build(name: Activation) -> nn.Module:
    """A fresh module; `linear` is the identity."""
    return BUILDERS[name]()
