"""Where a run stands, and how that goes into a checkpoint and comes out again."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainkit.fit import checkpoint
from trainkit.fit.checkpoint import CheckpointError
from trainkit.spec import DatasetFacts, JobSpec

# A job may be resumed with more epochs, other rules or other limits; everything else decides the bits.
FREE_TO_CHANGE = {"name", "labels", "group", "early_stop", "resources"}
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


@dataclass
class Position:
    """The next step to do. With it every draw of data order and augmentation is known."""

    epoch: int = 1
    step_in_epoch: int = 0
    step: int = 0
    """Optimizer steps done since the start of the job."""
    seconds: float = 0.0
    """Training seconds of all attempts."""
    epoch_seconds: float = 0.0
    """Those of this epoch's steps: without evaluations and checkpoints, and steps that were lost are not counted."""

    def spend(self, since: float) -> float:
        """Count the time since then as this epoch's; returns now."""
        now = time.monotonic()
        self.epoch_seconds += now - since
        return now


def spec_hash(spec: JobSpec, facts: DatasetFacts) -> str:
    """Identity of what decides the weights: the spec without its free fields, and the dataset's size and columns."""
    document = spec.model_dump(mode="json", exclude={**dict.fromkeys(FREE_TO_CHANGE, True), "train": FREE_IN_TRAIN})
    document["dataset"].pop("id", None)
    if (
        document["train"]["gradient_accumulation_steps"] == 1
    ):  # checkpoints from before there was such a field stay good
        del document["train"]["gradient_accumulation_steps"]
    document["facts"] = facts.model_dump(mode="json")
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def rng_state(device: torch.device, dropout: torch.Generator | None = None) -> dict[str, Tensor]:
    """The global generators, which dropout draws from, or the one in their place."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state if dropout is None else {**state, dropout.device.type: dropout.get_state()}


def set_rng_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Put back what `rng_state` gave."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def load_for(path: Path, spec: JobSpec, facts: DatasetFacts, *, branch: bool = False) -> dict[str, Any]:
    """A checkpoint's state, checked to belong to this spec and dataset. Raises CheckpointError.

    A `branch` goes on otherwise than the run that wrote it: its rules, schedule, optimizer settings and limits are new.
    """
    state = checkpoint.load(path)
    if branch:
        state["position"] = {**state["position"], "seconds": 0.0}
        state["early_stop"] = []
        return state
    if state.get("spec_hash") != spec_hash(spec, facts):
        raise CheckpointError(
            f"checkpoint {path.name} belongs to another spec or dataset; only epochs, early_stop, limits and names "
            "may change between attempts (start a new job for the rest)"
        )
    return state


def prune(folder: Path) -> None:
    """Keep the newest few checkpoints: the one before is the way back when the last is torn."""
    files = sorted(folder.glob("step-*.safetensors"))
    for old in files[:-KEPT_CHECKPOINTS]:
        old.unlink(missing_ok=True)
