"""Checkpoints: one safetensors file that holds every tensor and, as JSON, every number. No pickle, never torn."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainkit.files import sync_folder

FORMAT = "trainkit-checkpoint-1"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used: torn, corrupt, or of another spec."""


class VersionError(CheckpointError):
    """It was written in another format, by an older or newer trainkit."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint on disk."""

    path: Path
    sha256: str
    bytes: int


def save(path: Path, state: dict[str, Any]) -> Saved:
    """Write `state`, a nest of dicts and lists with tensors and JSON values as leaves, to `path` atomically.

    Written beside `path`, synced, renamed, directory synced: after a crash there is the old file or the new one.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_pack(state, "", tensors))
    metadata = {"format": FORMAT, "state": tree, "digest": _digest(tree, tensors)}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata)
        sha256 = hashlib.sha256()
        with temporary.open("rb") as file:
            while block := file.read(1 << 22):
                sha256.update(block)
            os.fsync(file.fileno())
        size = temporary.stat().st_size
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return Saved(path, sha256.hexdigest(), size)


def load(path: Path) -> dict[str, Any]:
    """The state that `save` wrote, tensors on the CPU. Raises CheckpointError for a missing, torn or altered file."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path.name} cannot be read: {error}") from error
    if metadata.get("format") != FORMAT:
        raise VersionError(f"{path.name} is not a checkpoint of this version ({FORMAT})")
    if metadata.get("digest") != _digest(metadata.get("state", ""), tensors):
        raise CheckpointError(f"checkpoint {path.name} is corrupt: its contents do not match their digest")
    state: dict[str, Any] = _unpack(json.loads(metadata["state"]), tensors)
    return state


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The tree as JSON; tensors move out under their path. Dicts become pairs, for JSON keys are strings only."""
    if isinstance(value, Tensor):
        # A copy: safetensors refuses tensors that share memory, and training goes on writing into these.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {
            "items": [[key, _pack(one, f"{name}.{key}" if name else str(key), tensors)] for key, one in value.items()]
        }
    if isinstance(value, list | tuple):
        return [_pack(one, f"{name}.{index}", tensors) for index, one in enumerate(value)]
    return value


def _unpack(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, dict):
        if "tensor" in node:
            return tensors[node["tensor"]]
        return {key: _unpack(one, tensors) for key, one in node["items"]}
    if isinstance(node, list):
        return [_unpack(one, tensors) for one in node]
    return node


def _digest(tree: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(tree.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
