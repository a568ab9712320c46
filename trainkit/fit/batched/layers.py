"""Layers of K networks of one shape at once, each with its own weights: what every network's own layer gives.

Vectors stand as (K, B, F), feature maps as (B, K*C, H, W): a convolution of K groups, and norms and pooling by channel,
never mix the trials. Dropout draws each trial's mask from a generator of its own, as the trial alone would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainkit.nn.activations import BUILDERS
from trainkit.nn.network import GlobalAverage, Network

Weights = Mapping[str, Tensor]
"""Stacked parameters and buffers (K, ...) by their name in one network."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of one of the networks, at its path; the others' are the same but for the weights."""

    path: str
    module: Any

    def of(self, weights: Weights, name: str) -> Tensor:
        """The stacked tensor of that name."""
        return weights[f"{self.path}.{name}"]


def layers_of(network: Network) -> list[Layer]:
    """The network's layers in the order they are gone through. Raises TypeError for one that cannot be stacked."""
    found = []
    for path, module in network.named_modules():
        if isinstance(module, Network | nn.Sequential):
            continue
        if type(module) not in OPERATIONS:
            raise TypeError(f"{path} ({type(module).__name__}) cannot be stacked")
        found.append(Layer(path, module))
    return found


def stacked_outputs(
    layers: Sequence[Layer], x: Tensor, weights: Weights, generators: Sequence[torch.Generator]
) -> Tensor:
    """(K, B, outputs) of x (K, B, ...) in training mode; running statistics among `weights` move in place."""
    maps = any(isinstance(layer.module, nn.Conv2d) for layer in layers)
    x = x.transpose(0, 1).flatten(1, 2) if maps else x.flatten(2)
    for layer in layers:
        x = OPERATIONS[type(layer.module)](layer, x, weights, generators)
    return x


def _folded(x: Tensor) -> Tensor:
    """(K, B, F) as (B, K*F)."""
    return x.transpose(0, 1).flatten(1)


def _unfolded(x: Tensor, trials: int) -> Tensor:
    """(B, K*C, ...) as (K, B, C*...)."""
    return x.reshape(len(x), trials, -1).transpose(0, 1)


def _flatten(_: Layer, x: Tensor, __: Weights, generators: Sequence[torch.Generator]) -> Tensor:
    return _unfolded(x, len(generators)) if x.ndim == 4 else x


def _average(_: Layer, x: Tensor, __: Weights, generators: Sequence[torch.Generator]) -> Tensor:
    return _unfolded(x.mean((2, 3)), len(generators))


def _plain(layer: Layer, x: Tensor, _: Weights, __: Sequence[torch.Generator]) -> Tensor:
    out: Tensor = layer.module(x)
    return out


def _linear(layer: Layer, x: Tensor, weights: Weights, _: Sequence[torch.Generator]) -> Tensor:
    weight = layer.of(weights, "weight").transpose(1, 2)
    if layer.module.bias is None:
        return torch.bmm(x, weight)
    return torch.baddbmm(layer.of(weights, "bias").unsqueeze(1), x, weight)


def _convolution(layer: Layer, x: Tensor, weights: Weights, generators: Sequence[torch.Generator]) -> Tensor:
    module = layer.module
    bias = None if module.bias is None else layer.of(weights, "bias").flatten()
    kernels = layer.of(weights, "weight").flatten(0, 1)
    groups = len(generators) * module.groups
    return F.conv2d(x, kernels, bias, module.stride, module.padding, module.dilation, groups)


def _dropout(layer: Layer, x: Tensor, _: Weights, generators: Sequence[torch.Generator]) -> Tensor:
    return x * _masks(layer.module.p, x.shape, generators, x) if layer.module.p > 0 else x


def _channel_dropout(layer: Layer, x: Tensor, _: Weights, generators: Sequence[torch.Generator]) -> Tensor:
    if layer.module.p == 0:
        return x
    trials = len(generators)
    masks = _masks(layer.module.p, (trials, len(x), x.shape[1] // trials), generators, x)
    return x * _folded(masks)[:, :, None, None]


def _masks(p: float, shape: Sequence[int], generators: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """0 with probability p, else 1/(1-p); the draws are those of torch's own dropout on a CPU."""
    masks = torch.empty(tuple(shape), dtype=like.dtype, device=like.device)
    for mask, generator in zip(masks, generators, strict=True):
        mask.bernoulli_(1 - p, generator=generator)
    return masks.div_(1 - p)


def _layer_norm(layer: Layer, x: Tensor, weights: Weights, _: Sequence[torch.Generator]) -> Tensor:
    normal = F.layer_norm(x, layer.module.normalized_shape, eps=layer.module.eps)
    return torch.addcmul(layer.of(weights, "bias").unsqueeze(1), normal, layer.of(weights, "weight").unsqueeze(1))


def _by_channel(
    normalise: Callable[[Layer, Tensor, Weights, int], Tensor],
) -> Callable[[Layer, Tensor, Weights, Sequence[torch.Generator]], Tensor]:
    """A norm whose channels may stand side by side, for vectors too."""

    def norm(layer: Layer, x: Tensor, weights: Weights, generators: Sequence[torch.Generator]) -> Tensor:
        trials = len(generators)
        return (
            _unfolded(normalise(layer, _folded(x), weights, trials), trials)
            if x.ndim == 3
            else normalise(layer, x, weights, trials)
        )

    return norm


def _group_norm(layer: Layer, x: Tensor, weights: Weights, trials: int) -> Tensor:
    scale, shift = layer.of(weights, "weight").flatten(), layer.of(weights, "bias").flatten()
    return F.group_norm(x, trials * layer.module.num_groups, scale, shift, layer.module.eps)


def _batch_norm(layer: Layer, x: Tensor, weights: Weights, _: int) -> Tensor:
    mean, variance, scale, shift = (
        layer.of(weights, name).flatten() for name in ("running_mean", "running_var", "weight", "bias")
    )
    layer.of(weights, "num_batches_tracked").add_(1)
    return F.batch_norm(x, mean, variance, scale, shift, True, layer.module.momentum, layer.module.eps)


OPERATIONS: dict[type[nn.Module], Callable[[Layer, Tensor, Weights, Sequence[torch.Generator]], Tensor]] = {
    **{type(build()): _plain for build in BUILDERS.values()},
    nn.MaxPool2d: _plain,
    nn.AvgPool2d: _plain,
    nn.Flatten: _flatten,
    GlobalAverage: _average,
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.Dropout: _dropout,
    nn.Dropout2d: _channel_dropout,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _by_channel(_group_norm),
    nn.BatchNorm1d: _by_channel(_batch_norm),
    nn.BatchNorm2d: _by_channel(_batch_norm),
}
