"""Freezing: frozen parameters get no gradient, frozen modules stay in eval mode whatever `.train()` says.

`requires_grad=False` alone does not stop batch norm's running statistics (pytorch#86590).
"""

from __future__ import annotations

from typing import Literal

from trainkit.nn.network import Network, body_blocks

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
