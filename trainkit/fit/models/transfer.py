"""Weights of a trained model into a new network: from an artifact folder, a safetensors file or a state dict."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from trainkit.data.reasons import damage_reason
from trainkit.data.weights import classes_in
from trainkit.fit.encoding.targets import TargetScaler
from trainkit.fit.seeding import derive
from trainkit.nn.build import redraw_head
from trainkit.nn.init import initialize_
from trainkit.nn.layers import build_head
from trainkit.nn.network import Network, head_width, hidden_widths, output_layer
from trainkit.spec import JobSpec
from trainkit.spec.checks.transfer import kept_head_problem
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
        reason = damage_reason(error)
        hint = "Give a safetensors file, or a plain state dict of tensors."
        raise SpecError(
            [Problem("/start_from", "unreadable_weights", f"{path.name} cannot be read as weights: {reason}", hint)]
        ) from error
    if not isinstance(tensors, Mapping):
        raise SpecError([Problem("/start_from", "unreadable_weights", f"{path.name} holds no state dict", "")])
    if any(name.startswith(NETWORK) for name in tensors):
        return {name.removeprefix(NETWORK): t for name, t in tensors.items() if name.startswith(NETWORK)}
    return {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}


@dataclass(frozen=True, slots=True)
class SourceTargets:
    """What a source's outputs mean, where it says so."""

    classes: tuple[str, ...] | None = None
    """The class of each output; None for numbers, and where the source does not say."""
    scaler: TargetScaler | None = None
    """Of a model that predicts numbers."""


def read_source_targets(source: Any) -> SourceTargets:
    """The meaning of a source's outputs, of a TrainedModel, an artifact folder, or a weight file's metadata: the `manifest`
    of a model that was written as one file, else `classes`."""
    if hasattr(source, "network"):
        return SourceTargets(source.classes, source.scaler)
    path = Path(source)
    if path.is_dir():
        return _described_targets((path / "model.json").read_text(encoding="utf-8"))
    if path.suffix in (".pt", ".pth"):
        return SourceTargets()
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    try:
        return _described_targets(metadata["manifest"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return SourceTargets(classes_in(metadata))  # no model that was written as one file


def _described_targets(manifest: str) -> SourceTargets:
    described = json.loads(manifest)
    classes, scaler = described.get("classes"), described.get("target_scaler")
    return SourceTargets(
        None if classes is None else tuple(classes), None if scaler is None else TargetScaler.from_state(scaler)
    )


def start_from(network: Network, spec: JobSpec, source: Any, targets: SourceTargets) -> str:
    """Apply `spec.start_from`: take over the body, and draw a new head or keep the source's. Says what was taken.

    `targets` are this job's. Raises SpecError when nothing of the source fits, or its head cannot be kept.
    """
    start = spec.start_from
    assert start is not None
    tensors = read_tensors(source)
    taken, fresh = (_by_name if start.match == "name" else _by_position)(network, tensors, "body")
    only_a_head = not _scoped(network, "body")  # a linear model's only layer
    if not taken and not (only_a_head and start.head == "keep"):
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
    if start.head == "keep":
        taken += _keep_head(network, tensors, read_source_targets(source), targets)
    else:
        outputs = output_layer(network).out_features
        seed = derive(spec.train.seed, "head", _fingerprint(tensors))
        if start.head_hidden:
            replace_head(network, start.head_hidden, outputs, seed)
        else:
            redraw_head(network, spec.model, seed)
    message = f"took {taken} tensors from the source"
    if fresh:
        message += f"; {len(fresh)} start afresh: {', '.join(fresh[:5])}{' ...' if len(fresh) > 5 else ''}"
    return message


def _fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Hash of a source's last layers: with it a new head is never drawn from the numbers that the source's began with."""
    last = [tensor for name, tensor in tensors.items() if name.startswith("head.")] or list(tensors.values())[-2:]
    digest = hashlib.blake2b(digest_size=8)
    for tensor in last:
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _keep_head(network: Network, tensors: Mapping[str, Tensor], source: SourceTargets, targets: SourceTargets) -> int:
    """Load the source's head, its hidden layers included; returns how many tensors.

    Rows of the output layer go to the classes of the same name. Numbers are scaled from the source's scale to this
    job's, so that the kept head predicts the same values.
    """
    found = kept_head_problem(source.classes, targets.classes)
    if found is not None:
        raise SpecError([found])
    hidden = [tensors[name].shape[0] for name in tensors if re.fullmatch(r"head\.hidden_\d+\.linear\.weight", name)]
    if hidden and not hidden_widths(network):  # the source's head was made with `head_hidden`
        replace_head(network, hidden, output_layer(network).out_features, seed=0)  # overwritten below
    head = {name: tensor for name, tensor in tensors.items() if name.startswith("head.")}
    weight, bias = (head.get(f"head.output.{name}") for name in ("weight", "bias"))
    if weight is not None and bias is not None:
        if targets.classes is not None and source.classes is not None:
            rows = [source.classes.index(name) for name in targets.classes]
            weight, bias = weight[rows], bias[rows]
        elif source.scaler is not None and targets.scaler is not None and len(bias) == len(source.scaler.scale):
            ratio = torch.from_numpy(source.scaler.scale / targets.scaler.scale)
            shift = torch.from_numpy((source.scaler.shift - targets.scaler.shift) / targets.scaler.scale)
            weight, bias = (weight * ratio[:, None]).to(weight.dtype), (bias * ratio + shift).to(bias.dtype)
        head |= {"head.output.weight": weight, "head.output.bias": bias}
    head_state = {name: tensor for name, tensor in network.state_dict().items() if name.startswith("head.")}
    if head.keys() != head_state.keys() or any(head[name].shape != head_state[name].shape for name in head_state):
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in head.items()) or "none"
        expected_shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in head_state.items())
        message = f"the source's head ({shapes}) has another shape than this model needs ({expected_shapes})"
        raise SpecError([Problem("/start_from/head", "head_does_not_fit", message, 'Use "head": "new".')])
    network.load_state_dict(head, strict=False)
    return len(head)


def pretrained(network: Network, source: Any, targets: SourceTargets) -> str:
    """`init: pretrained`: every tensor that fits by name and shape; the head where its classes are known by name."""
    tensors, of_source = read_tensors(source), read_source_targets(source)
    taken, fresh = _by_name(network, tensors, "body")
    try:
        taken += _keep_head(network, tensors, of_source, targets)
        left = ""
    except SpecError as error:
        fresh += [name for name in network.state_dict() if name.startswith("head.")]
        left = f"; the head starts afresh, because {error.problems[0].message}"
    if not taken:
        raise SpecError([Problem("/model/init", "nothing_matches", "no tensor of the source fits this model", "")])
    return f"took {taken} tensors from the source, {len(fresh)} start afresh{left}"


def _by_name(network: Network, tensors: Mapping[str, Tensor], scope: str) -> tuple[int, list[str]]:
    """Same name and shape; names of plain torchvision state dicts are found under the body."""
    state, found = _scoped(network, scope), {}
    for name, tensor in state.items():
        # the image encoder of a multimodal network takes the weights of a network of images
        plain = name.removeprefix("body.").removeprefix("image.")
        for candidate in (name, f"body.{plain}", plain, plain.removeprefix("backbone.")):
            if candidate in tensors and tensors[candidate].shape == tensor.shape:
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
    for name, target in state.items():
        queue = queues.get((_leaf(name) if leaves else "", tuple(target.shape)))
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
    """Put a fresh head on the body: hidden relu layers (such as [1024]) and the output layer, drawn from `seed` (He)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.head = build_head(head_width(network), hidden, outputs)
    initialize_(network.head, HeNormalInit(), torch.Generator().manual_seed(seed))
