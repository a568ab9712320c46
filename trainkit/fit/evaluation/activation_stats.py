"""Dead and saturated units: dead ones output zero for every sample, saturated ones stay at an end of their range.

Forward hooks observe the activations; no value of the pass depends on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from trainkit.fit.evaluation.evaluate import Forward

ACTIVATIONS = (nn.Sigmoid, nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.ReLU6, nn.Hardswish)
RECURRENT = (nn.LSTM, nn.GRU)
"""Their states at every true step count as activations; both are bounded by -1 and 1."""
RECTIFYING: tuple[type[nn.Module], ...] = (nn.ReLU, nn.ReLU6, nn.Hardswish)
"""Exactly zero, and flat, over a half-line: a unit that stays there gets no gradient any more."""
SQUASHING: tuple[type[nn.Module], ...] = (nn.Sigmoid, nn.Tanh, *RECURRENT)
NEAR = 0.01
"""An activation within 1 % of its range from an asymptote counts as saturated: a sigmoid's or tanh's slope is there
less than 4 % of its steepest (Glorot and Bengio 2010 watch layers saturate in this sense)."""
MOSTLY = 0.5
"""A unit is saturated when more than this share of its values is: it is so more often than not."""
SAMPLES = 256
"""How many samples are looked at."""

Observer = Callable[[str, nn.Module, Any], None]


def modules_of(network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> list[tuple[str, nn.Module]]:
    """(path, module) of every module of these kinds, in the order they were built in."""
    return [(path, module) for path, module in network.named_modules() if isinstance(module, kinds)]


@contextmanager
def hooked(modules: Iterable[tuple[str, nn.Module]], observe: Observer) -> Iterator[None]:
    """Call `observe(path, module, output)` with every output of these modules; the hooks are removed afterwards."""

    def hook(path: str) -> Callable[..., None]:
        return lambda module, _inputs, output: observe(path, module, output)

    hooks = [module.register_forward_hook(hook(path)) for path, module in modules]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()


def near_an_end(module: nn.Module, output: Tensor) -> Tensor | None:
    """Which values are near an asymptote; None for functions without an upper and a lower one."""
    if isinstance(module, nn.Sigmoid):
        return (output < NEAR) | (output > 1 - NEAR)
    if isinstance(module, (nn.Tanh, *RECURRENT)):
        return output.abs() > 1 - 2 * NEAR
    return None


def states(output: Any) -> Tensor:
    """The values of a module's output: of a recurrent layer the states at every true step."""
    values = output[0] if isinstance(output, tuple) and not isinstance(output, PackedSequence) else output
    return values.data if isinstance(values, PackedSequence) else values


def unit_axis(output: Tensor) -> int:
    """Channels of feature maps (B, C, H, W), features of all else."""
    return 1 if output.ndim == 4 else output.ndim - 1


@dataclass(slots=True)
class _Layer:
    """What is known of a module's units: (units,) the sum of magnitudes, or how many of `count` values are near an end."""

    path: str
    values: Tensor
    count: int


class UnitStats:
    """Listens to the first `SAMPLES` samples that pass through `forward`, in eval mode; then `shares` tells."""

    def __init__(self, modules: list[tuple[str, nn.Module]]) -> None:
        self._modules = modules
        self._seen = self._taken = self._batch = 0
        self._layers: dict[tuple[str, int], _Layer] = {}
        self._calls: dict[str, int] = {}

    @contextmanager
    def watch(self, forward: Forward) -> Iterator[Forward]:
        """The same forward pass, listened to while the context lasts."""

        def watched(x: Tensor, side_input: Tensor | None) -> Tensor:
            self._batch, self._taken = len(x), min(len(x), SAMPLES - self._seen)
            self._calls.clear()
            self._seen += self._taken
            return forward(x, side_input)

        with hooked(self._modules, self._observe):
            yield watched

    def _observe(self, path: str, module: nn.Module, output: Any) -> None:
        if not self._taken:
            return
        # A module may stand in several places of one pass, as torchvision's relus do: each has units of its own.
        call = self._calls[path] = self._calls.get(path, 0) + 1
        plain = type(output) is Tensor and len(output) == self._batch
        output = output[: self._taken] if plain else _first(output, self._taken, self._batch)
        axis = unit_axis(output)
        others = [dim for dim in range(output.ndim) if dim != axis]
        if isinstance(module, RECTIFYING):
            # A sum of magnitudes is zero where all of them are; what is not finite is no zero, and stays.
            values, count = (output.abs() if isinstance(module, nn.Hardswish) else output).sum(others), 0
        else:
            near = near_an_end(module, output)
            assert near is not None  # only such modules are listened to
            values, count = near.sum(others), near.numel() // near.shape[axis]
        known = self._layers.get((path, call))
        if known is not None:
            values, count = values + known.values, count + known.count
        self._layers[path, call] = _Layer(path, values, count)

    def shares(self) -> dict[str, dict[str, float]]:
        """`{"dead_units": {path: share}, "saturated_units": ...}`; the share over all layers under the path "".

        One read from the device. Empty where no such activation was observe.
        """
        if not self._layers:
            return {}
        layers = list(self._layers.values())
        everything: list[float] = torch.cat([layer.values.float() for layer in layers]).tolist()
        found: dict[str, dict[str, tuple[int, int]]] = {}
        end = 0
        for layer in layers:
            start, end = end, end + len(layer.values)
            values, threshold = everything[start:end], MOSTLY * layer.count
            many = sum(value > threshold for value in values) if layer.count else values.count(0.0)
            one = found.setdefault("saturated_units" if layer.count else "dead_units", {})
            for path in ("", layer.path):
                before = one.get(path, (0, 0))
                one[path] = before[0] + many, before[1] + len(values)
        return {name: {path: n / of for path, (n, of) in one.items()} for name, one in found.items()}


def _first(output: Any, samples: int, batch: int) -> Tensor:
    """The values of a batch's first `samples` samples; a packed sequence's stand by time step, longest sample first."""
    packed = output[0] if isinstance(output, tuple) and not isinstance(output, PackedSequence) else output
    values = states(output)
    if samples >= batch:
        return values
    if isinstance(packed, PackedSequence):
        order = packed.sorted_indices
        if order is None:
            order = torch.arange(batch, device=values.device)
        sample = torch.cat([order[:alive] for alive in packed.batch_sizes.tolist()])
        return values[sample < samples]
    return values[:samples] if len(values) == batch else values
