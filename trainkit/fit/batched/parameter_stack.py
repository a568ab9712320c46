"""K networks of one shape in one storage: theirs are views of it, so whatever reads or writes a network still does.

A row of `values` (K, P) is a network's parameters one behind the other, those that are weights first; `gradients` has the
same form. What is done to a row is done to that trial alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainkit.fit.batched.layers import layers_of, stacked_outputs
from trainkit.nn.network import Network
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
        own = [[network.get_parameter(place.name) for place in self.places] for network in networks]
        values = torch.stack([torch.cat([one.detach().flatten() for one in parameters]) for parameters in own])
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
