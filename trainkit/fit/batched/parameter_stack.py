"""K networks of one shape in one storage: theirs are views of it, so whatever reads or writes a network still does.

A row of `values` (K, P) is a network's parameters one behind the other, those that are weights first; `gradients` has the
same form. What is done to a row is done to that trial alone. Layers are computed for all K at once: vectors stand as
(K, B, F), feature maps as (B, K*C, H, W): a convolution of K groups, and norms and pooling by channel, never mix the
trials. Dropout draws each trial's mask from a generator of its own, as the trial alone would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainkit.nn.layers import ACTIVATIONS
from trainkit.nn.network import GlobalAverage, Network
from trainkit.regularize import weights_of


@dataclass(frozen=True, slots=True)
class ParameterSlice:
    """Where a parameter stands in a row."""

    name: str
    start: int
    end: int
    shape: torch.Size

    def of(self, rows: Tensor) -> Tensor:
        """(K, *shape) of rows (K, P), as a view."""
        return rows[:, self.start : self.end].view(len(rows), *self.shape)


class ParameterStack:
    """The networks that are trained together."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self.layers = layers_of(networks[0])
        self.places, self.weights = _layout(networks[0])
        """Of the parameters in a row; the first `weights` numbers of it are weights, which penalties see."""
        parameters_by_network = [[network.get_parameter(place.name) for place in self.places] for network in networks]
        values = torch.stack(
            [torch.cat([one.detach().flatten() for one in parameters]) for parameters in parameters_by_network]
        )
        names = [name for name, _ in networks[0].named_buffers()]
        buffers = {name: torch.stack([network.get_buffer(name) for network in networks]) for name in names}
        self._hold(list(networks), values, torch.zeros_like(values), buffers)

    def __len__(self) -> int:
        return len(self.networks)

    def _hold(self, networks: list[Network], values: Tensor, gradients: Tensor, buffers: dict[str, Tensor]) -> None:
        self.networks, self.values, self.gradients, self._buffers = networks, values, gradients, buffers
        self._leaves = {place.name: place.of(values).detach().requires_grad_() for place in self.places}
        self._into = [place.of(gradients) for place in self.places]
        for place in self.places:
            for network, value, gradient in zip(networks, place.of(values), place.of(gradients), strict=True):
                parameter = network.get_parameter(place.name)
                parameter.data, parameter.grad = value, gradient
        for name, stacked in buffers.items():
            for network, value in zip(networks, stacked, strict=True):
                network.get_buffer(name).data = value

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these trials only; the networks of the others keep what they have, each in a storage of its own."""
        for row in set(range(len(self))) - set(rows):
            for tensor in (*self.networks[row].parameters(), *self.networks[row].buffers()):
                tensor.data, tensor.grad = tensor.data.clone(), None
        at = list(rows)
        buffers = {name: stacked[at] for name, stacked in self._buffers.items()}
        self._hold([self.networks[row] for row in at], self.values[at], self.gradients[at], buffers)

    def gradient(
        self,
        rows: Sequence[int],
        x: Tensor,
        loss_of: Callable[[Tensor], Tensor],
        generators: Sequence[torch.Generator],
    ) -> tuple[Tensor, Tensor]:
        """Gradients of the losses (k,) that `loss_of` makes of outputs (k, B, K), into the rows' `gradients`.

        x (k, B, ...) holds a batch for each of `rows`, `generators` draw their dropout. Returns outputs and losses.
        """
        every, at = len(rows) == len(self), list(rows)
        leaves, buffers = self._leaves, self._buffers
        if not every:
            leaves = {name: leaf.detach()[at].requires_grad_() for name, leaf in leaves.items()}
            buffers = {name: stacked[at] for name, stacked in buffers.items()}
        z = stacked_outputs(self.layers, x, {**leaves, **buffers}, generators)
        losses = loss_of(z)
        # A trial's loss depends on its own row alone: the gradient of the sum is each one's own.
        found = torch.autograd.grad(losses.sum(), list(leaves.values()))
        for into, gradient in zip(self._into, found, strict=True):
            if every:
                into.copy_(gradient)
            else:
                into[at] = gradient
        if not every:
            for name, moved in buffers.items():
                self._buffers[name][at] = moved
        return z.detach(), losses.detach()


def same_shape(networks: Sequence[nn.Module]) -> bool:
    """Whether all parameters and buffers have the same names and shapes."""
    first, *others = ([(name, tensor.shape) for name, tensor in network.state_dict().items()] for network in networks)
    return all(one == first for one in others)


def _layout(network: Network) -> tuple[list[ParameterSlice], int]:
    """(places of the parameters, how many of a row's numbers are weights)."""
    weights = {id(weight) for weight in weights_of(network)}
    ordered = sorted(network.named_parameters(), key=lambda named: id(named[1]) not in weights)
    places, start = [], 0
    for name, parameter in ordered:
        places.append(ParameterSlice(name, start, start + parameter.numel(), parameter.shape))
        start += parameter.numel()
    return places, sum(weight.numel() for weight in weights_of(network))


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
    if layer.module.p == 0:
        return x
    if x.ndim == 3:
        return x * _masks(layer.module.p, x.shape, generators, x)
    trials = len(generators)
    masks = _masks(layer.module.p, (trials, len(x), x.shape[1] // trials, *x.shape[2:]), generators, x)
    return x * masks.transpose(0, 1).flatten(1, 2)


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
    **{type(build()): _plain for build in ACTIVATIONS.values()},
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
