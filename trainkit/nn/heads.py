"""New heads for transfer learning."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from trainkit.nn.init import initialize_
from trainkit.nn.mlp import dense_block
from trainkit.nn.network import Network
from trainkit.spec.init import HeNormalInit


def head_width(network: Network) -> int:
    """Width of the features that the head reads."""
    first = next(layer for layer in network.head.modules() if isinstance(layer, nn.Linear))
    return first.in_features


def replace_head(network: Network, hidden: Sequence[int], outputs: int, seed: int) -> None:
    """Put a fresh head on the body: hidden relu layers (such as [1024]) and the output layer, drawn from `seed`."""
    width = head_width(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, wide in enumerate(hidden, start=1):
            layers[f"hidden_{number}"] = dense_block(width, wide, "relu")
            width = wide
        layers["output"] = nn.Linear(width, outputs)
    network.head = nn.Sequential(layers)
    initialize_(network.head, HeNormalInit(), torch.Generator().manual_seed(seed))
