"""Weights of a trained model into a new network: from an artifact folder, a safetensors file or a state dict."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from trainkit.fit.seeding import derive
from trainkit.nn.init import initialize_
from trainkit.nn.layers import dense_block
from trainkit.nn.network import Network, head_width
from trainkit.spec import JobSpec
from trainkit.spec.init import HeNormalInit
from trainkit.spec.problems import Problem, SpecError

NETWORK = "network."
"""Prefix of the network's tensors in an artifact."""


def read_tensors(source: Any) -> dict[str, Tensor]:
    """The network's tensors of a TrainedModel, an artifact folder, a `.safetensors` file or a `.pt` state dict.

    Raises SpecError when there is nothing to read.
    """
    if hasattr(source, "network"):
        return dict(source.network.state_dict())
    path = Path(source)
    path = path / "model.safetensors" if path.is_dir() else path
    try:
        if path.suffix in (".pt", ".pth"):
            tensors: Any = torch.load(path, map_location="cpu", weights_only=True)
        else:
            # A safetensors file keeps no order of its own: the names' natural order is the layers' order.
            loaded = load_file(path)
            tensors = {name: loaded[name] for name in sorted(loaded, key=_natural)}
    except MemoryError:
        raise
    except Exception as error:  # bytes that are no pickle make the unpickler stumble in any way
        reason = str(error).partition("\n")[0][:200]
        hint = "Give a safetensors file, or a plain state dict of tensors."
        raise SpecError(
            [Problem("/start_from", "unreadable_weights", f"{path.name} cannot be read as weights: {reason}", hint)]
        ) from error
    if not isinstance(tensors, Mapping):
        raise SpecError([Problem("/start_from", "unreadable_weights", f"{path.name} holds no state dict", "")])
    if any(name.startswith(NETWORK) for name in tensors):
        return {name.removeprefix(NETWORK): t for name, t in tensors.items() if name.startswith(NETWORK)}
    return {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}


def start_from(network: Network, spec: JobSpec, source: Any, outputs: int) -> str:
    """Apply `spec.start_from`: take over the body (for `keep` the head too), draw a new head. Says what was taken."""
    start = spec.start_from
    assert start is not None
    tensors = read_tensors(source)
    if start.head == "new" and start.head_hidden:
        replace_head(network, start.head_hidden, outputs, derive(spec.train.seed, "head"))
    scope: Literal["body", "all"] = "all" if start.head == "keep" else "body"
    taken, fresh = (_by_name if start.match == "name" else _by_position)(network, tensors, scope)
    if not taken:
        names, ours = ", ".join(list(tensors)[:3]), ", ".join(list(network.state_dict())[:3])
        raise SpecError(
            [
                Problem(
                    "/start_from",
                    "nothing_matches",
                    f"no tensor of the source fits this model (source: {names} ...; model: {ours} ...)",
                    "Give `model` the source's architecture, or pair by position with `match: position`.",
                )
            ]
        )
    if start.head == "keep" and any(name.startswith("head.") for name in fresh):
        raise SpecError(
            [
                Problem(
                    "/start_from/head",
                    "head_does_not_fit",
                    "the source's head has another shape than this dataset's classes need",
                    'Use "head": "new".',
                )
            ]
        )
    message = f"took {taken} tensors from the source"
    if fresh:
        message += f"; {len(fresh)} start afresh: {', '.join(fresh[:5])}{' ...' if len(fresh) > 5 else ''}"
    return message


def pretrained(network: Network, source: Any) -> str:
    """`init: pretrained`: every tensor that fits by name and shape, head included."""
    taken, fresh = _by_name(network, read_tensors(source), "all")
    if not taken:
        raise SpecError([Problem("/model/init", "nothing_matches", "no tensor of the source fits this model", "")])
    return f"took {taken} tensors from the source, {len(fresh)} start afresh"


def _by_name(network: Network, tensors: Mapping[str, Tensor], scope: str) -> tuple[int, list[str]]:
    """Same name and shape; names of plain torchvision state dicts are found under the body."""
    state, found = _scoped(network, scope), {}
    for name, own in state.items():
        plain = name.removeprefix("body.")
        for candidate in (name, plain, plain.removeprefix("backbone.")):
            if candidate in tensors and tensors[candidate].shape == own.shape:
                found[name] = tensors[candidate]
                break
    return _load(network, state, found)


def _by_position(network: Network, tensors: Mapping[str, Tensor], scope: str) -> tuple[int, list[str]]:
    """The n-th tensor of a shape with the source's n-th of that shape, weights with weights and biases with biases.

    Where the source's names do not tell weights from biases, shape and order alone decide.
    """
    state = _scoped(network, scope)
    source = {name: t for name, t in tensors.items() if scope == "all" or not name.startswith("head.")}
    found = _paired(state, source, leaves=True) or _paired(state, source, leaves=False)
    return _load(network, state, found)


def _paired(state: Mapping[str, Tensor], source: Mapping[str, Tensor], *, leaves: bool) -> dict[str, Tensor]:
    queues: dict[tuple[str, tuple[int, ...]], list[Tensor]] = {}
    for name, tensor in source.items():
        queues.setdefault((_leaf(name) if leaves else "", tuple(tensor.shape)), []).append(tensor)
    found = {}
    for name, own in state.items():
        queue = queues.get((_leaf(name) if leaves else "", tuple(own.shape)))
        if queue:
            found[name] = queue.pop(0)
    return found


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _natural(name: str) -> list[tuple[int, str]]:
    """A sorting key by which layer2 comes before layer10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _scoped(network: Network, scope: str) -> dict[str, Tensor]:
    return {name: t for name, t in network.state_dict().items() if scope == "all" or name.startswith("body.")}


def _load(network: Network, state: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> tuple[int, list[str]]:
    network.load_state_dict(dict(found), strict=False)
    return len(found), [name for name in state if name not in found]


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
