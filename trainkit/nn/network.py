"""A network is a body (features) and a head (outputs), so that every architecture can be fine-tuned and frozen alike.

Frozen parameters get no gradient, and frozen modules stay in eval mode whatever `.train()` says: `requires_grad=False`
alone does not stop batch norm's running statistics (pytorch#86590).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import Tensor, nn


class Network(nn.Module):
    """z = head(body(x)): (B, ...) -> (B, outputs) raw outputs, no softmax.

    `head` holds the last linear layers; `body` is everything before them, in ordered named blocks.
    Recurrent bodies also take the true lengths (B,) of padded sequences (B, T, F).
    """

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.head = head
        self.frozen: frozenset[str] = frozenset()
        """Names of submodules that stay in eval mode (`set_trainable`)."""

    def features(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the head sees: (B, width)."""
        out: Tensor = self.body(x) if lengths is None else self.body(x, lengths)
        return out

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        out: Tensor = self.head(self.features(x, lengths))
        return out

    def train(self, mode: bool = True) -> Network:
        """Set the mode of all but the frozen modules: their batch norm must not move, their dropout not draw."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self


def body_blocks(network: Network) -> list[tuple[str, nn.Module]]:
    """The body's blocks that hold parameters, from input to output; "the last N blocks" counts these."""
    return [(name, block) for name, block in _children(network.body, "body") if _has_parameters(block)]


def _children(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Children in order; containers that only list stages are opened, so that a stage is a block."""
    for name, child in module.named_children():
        path = f"{prefix}.{name}"
        if name in ("backbone", "features", "layers", "encoder", "classifier", "stages", "blocks"):
            yield from _children(child, path)
        else:
            yield path, child


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def head_width(network: Network) -> int:
    """Width of the features that the head reads."""
    first = next(layer for layer in network.head.modules() if isinstance(layer, nn.Linear))
    return first.in_features


Unfreeze = int | Literal["none", "all"]


def set_trainable(network: Network, unfreeze: Unfreeze) -> list[str]:
    """Open the head and the body's last blocks; freeze the rest. Returns the names of the open body blocks.

    `none`: the head alone; N: also the last N blocks of the body (see `body_blocks`); `all`: everything.
    Raises ValueError when N is larger than the number of blocks.
    """
    blocks = body_blocks(network)
    if isinstance(unfreeze, int) and unfreeze > len(blocks):
        raise ValueError(f"cannot unfreeze {unfreeze} blocks: the body has {len(blocks)}")
    open_blocks = blocks if unfreeze == "all" else blocks[len(blocks) - (0 if unfreeze == "none" else unfreeze) :]
    names = [name for name, _ in open_blocks]
    everything = unfreeze == "all"
    for parameter in network.body.parameters():
        parameter.requires_grad_(everything)
    for _, block in open_blocks:
        for parameter in block.parameters():
            parameter.requires_grad_(True)
    for parameter in network.head.parameters():
        parameter.requires_grad_(True)
    network.frozen = frozenset() if everything else frozenset(_frozen_modules(network, names))
    network.train(network.training)
    return names


def _frozen_modules(network: Network, open_blocks: list[str]) -> list[str]:
    """The largest modules of the body that hold no open block."""
    if not open_blocks:
        return ["body"]
    frozen: list[str] = []
    for name, _ in network.named_modules():
        inside_body = name == "body" or name.startswith("body.")
        touches = any(_related(name, block) for block in open_blocks)
        if inside_body and not touches and not any(name.startswith(f"{done}.") for done in frozen):
            frozen.append(name)
    return frozen


def _related(name: str, block: str) -> bool:
    """Whether one of two module paths lies within the other."""
    return name == block or name.startswith(f"{block}.") or block.startswith(f"{name}.")


def body_is_frozen(network: Network) -> bool:
    """Whether no parameter of the body is trained."""
    return not any(parameter.requires_grad for parameter in network.body.parameters())


class GlobalAverage(nn.Module):
    """(B, C, H, W) -> (B, C), the mean over positions.

    Written as a mean because AdaptiveAvgPool2d has no deterministic backward pass on CUDA.
    """

    def __init__(self, keepdim: bool = False) -> None:
        super().__init__()
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=self.keepdim)


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """(all, trainable) scalar parameters."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trainable in sizes if trainable)
