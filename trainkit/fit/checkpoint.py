"""Checkpoints: one safetensors file that holds every tensor and, as JSON, every number. No pickle, never torn.

Whether a spec can resume from a checkpoint is decided by `spec_hash`: a hash of all that the weights depend on.
"""

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
from trainkit.spec import DatasetFacts, JobSpec

FORMAT = "trainkit-checkpoint-2"

# A job may be resumed with more epochs, other rules or other limits; everything else decides the bits.
FREE_TO_CHANGE = {"name", "labels", "group", "early_stop", "resources", "diagnose", "investigation"}
FREE_IN_TRAIN = {
    "epochs",
    "checkpoint_seconds",
    "log_every_steps",
    "evaluate_every_epochs",
    "evaluate_every_steps",
    "restore_best",
    "monitor",
    "threads",
    "log_stats",
    "sanity_checks",
}
KEPT_CHECKPOINTS = 3


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used: torn, corrupt, or of another spec."""


class VersionError(CheckpointError):
    """A checkpoint in the format of an older or newer trainkit."""


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A checkpoint on disk."""

    path: Path
    sha256: str
    bytes: int


def save(path: Path, state: dict[str, Any]) -> SavedCheckpoint:
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
    return SavedCheckpoint(path, sha256.hexdigest(), size)


def load(path: Path) -> dict[str, Any]:
    """The state that `save` wrote, tensors on the CPU. Raises CheckpointError for a missing, torn or altered file."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path.name} cannot be read: {error}") from error
    if metadata.get("format") != FORMAT:
        raise VersionError(
            f"{path.name} is not a checkpoint of this version: its format is {metadata.get('format')}, needed is {FORMAT}; "
            "start the job anew, or resume it with the version that wrote it"
        )
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


def spec_hash(spec: JobSpec, facts: DatasetFacts) -> str:
    """Identity of what decides the weights: the spec without its free fields, and the dataset's size and columns."""
    document = spec.model_dump(mode="json", exclude={**dict.fromkeys(FREE_TO_CHANGE, True), "train": FREE_IN_TRAIN})
    document["dataset"].pop("id", None)
    if document["start_from"] and document["start_from"].get("variant") is None:
        document["start_from"].pop("variant", None)  # checkpoints of earlier versions have no such field
    # what follows from the values alone is left out: datasets of earlier versions have no such facts
    document["facts"] = facts.model_dump(mode="json", exclude={"channels", "value_ranges"})
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def load_for(path: Path, spec: JobSpec, facts: DatasetFacts, *, branch: bool = False) -> dict[str, Any]:
    """Load a checkpoint and check that this spec and dataset can resume from it. Raises CheckpointError.

    A `branch` may start from another spec's checkpoint.
    """
    state = load(path)
    if not branch and state["spec_hash"] != spec_hash(spec, facts):
        raise CheckpointError(
            f"checkpoint {path.name} belongs to another spec or dataset; only epochs, early_stop, limits and names "
            "may change between attempts: start a new job for the rest"
        )
    return state


def prune(folder: Path) -> None:
    """Delete all but the newest few checkpoints: the one before is the way back when the last is torn."""
    files = sorted(folder.glob("step-*.safetensors"))
    for old in files[:-KEPT_CHECKPOINTS]:
        old.unlink(missing_ok=True)
