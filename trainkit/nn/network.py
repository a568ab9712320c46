"""A network is a body (features) and a head (outputs), so that every architecture can be fine-tuned alike."""

from __future__ import annotations

from collections.abc import Iterator

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
        """Names of submodules that stay in eval mode (see `trainkit.nn.freeze`)."""

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
