"""A network is a body (features) and a head (outputs), so that every architecture can be fine-tuned and frozen alike.

Frozen parameters get no gradient, and frozen modules stay in eval mode whatever `.train()` says: `requires_grad=False`
alone does not stop batch norm's running statistics (pytorch#86590).
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from trainkit.spec.training import Blocks, chosen_blocks


class Network(nn.Module):
    """z = head(body(x)): (B, ...) -> (B, outputs) raw outputs, no softmax.

    `head` holds the last linear layers; `body` is everything before them, in ordered named blocks.
    Some bodies read a second input: recurrent ones the true lengths (B,) of padded sequences (B, T, F), multimodal ones
    the columns (B, d) beside images.
    """

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.head = head
        self.frozen: frozenset[str] = frozenset()
        """Names of submodules that stay in eval mode (`set_trainable`)."""

    def features(self, x: Tensor, side_input: Tensor | None = None) -> Tensor:
        """What the head sees: (B, width)."""
        out: Tensor = self.body(x) if side_input is None else self.body(x, side_input)
        return out

    def forward(self, x: Tensor, side_input: Tensor | None = None) -> Tensor:
        out: Tensor = self.head(self.features(x, side_input))
        return out

    def train(self, mode: bool = True) -> Network:
        """Set the mode of all but the frozen modules: their batch norm must not move, their dropout not draw."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self


CONTAINERS = (
    "image",
    "columns",
    "backbone",
    "features",
    "layers",
    "encoder",
    "classifier",
    "stages",
    "blocks",
    "trunk_output",
)
"""Names of modules that only list stages."""


def body_blocks(network: Network) -> list[tuple[str, nn.Module]]:
    """The body's blocks that hold parameters, from input to output; "the last N blocks" counts these."""
    return [(name, block) for name, block in _children(network.body, "body") if _has_parameters(block)]


def _children(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Children in order; containers that only list stages are opened, so that a stage is a block."""
    for name, child in module.named_children():
        path = f"{prefix}.{name}"
        if name in CONTAINERS:
            yield from _children(child, path)
        else:
            yield path, child


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def head_width(network: Network) -> int:
    """Width of the features that the head reads."""
    first = next(layer for layer in network.head.modules() if isinstance(layer, nn.Linear))
    return first.in_features


def output_layer(network: Network) -> nn.Linear:
    """The head's last layer, with a row of weights for each output."""
    layer = network.head.get_submodule("output")
    assert isinstance(layer, nn.Linear)
    return layer


def hidden_widths(network: Network) -> list[int]:
    """Widths of the head's hidden layers, from the features to the output."""
    linear = (layer for layer in network.head.modules() if isinstance(layer, nn.Linear))
    return [layer.out_features for layer in linear][:-1]


def block_names(network: Network) -> list[str]:
    """Names of the body's blocks from input to output, as a spec names them: layer1, features.0, block_1 ..."""
    return [_short(path) for path, _ in body_blocks(network)]


def set_trainable(network: Network, unfreeze: Blocks) -> list[str]:
    """Open the head and the named blocks of the body; freeze the rest. Returns the names of the open blocks.

    Parameters that stand beside the blocks, such as a vision transformer's class token and position embedding, go with
    the first block. Raises ValueError for blocks that are not there (see `chosen_blocks`).
    """
    blocks = body_blocks(network)
    names = [_short(path) for path, _ in blocks]
    opened = chosen_blocks(names, unfreeze)
    everything = unfreeze == "all" or (bool(names) and opened == names)
    stem = everything or (bool(names) and names[0] in opened)
    inside = {id(parameter) for _, block in blocks for parameter in block.parameters()}
    for parameter in network.body.parameters():
        parameter.requires_grad_(stem and id(parameter) not in inside)
    open_blocks = [(path, block) for path, block in blocks if _short(path) in opened]
    for _, block in open_blocks:
        for parameter in block.parameters():
            parameter.requires_grad_(True)
    for parameter in network.head.parameters():
        parameter.requires_grad_(True)
    frozen = frozenset() if everything else frozenset(_frozen_modules(network, [path for path, _ in open_blocks]))
    network.frozen = frozen
    network.train(network.training)
    return opened


def open_modules(network: Network) -> list[nn.Module]:
    """The head, and the largest parts of the body whose parameters are all trained."""
    if all(parameter.requires_grad for parameter in network.parameters()):
        return [network]
    blocks = [block for _, block in body_blocks(network)]
    return [network.head, *(block for block in blocks if all(p.requires_grad for p in block.parameters()))]


def _short(path: str) -> str:
    return path.removeprefix("body.").replace("image.backbone.", "image.").removeprefix("backbone.")


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
