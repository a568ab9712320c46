"""The artifact of a trained model: model.safetensors (tensors) and model.json (everything else). No pickle."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainkit.files import sync_folder
from trainkit.fit.encode import encoder_from_state
from trainkit.fit.ensemble import EnsembleModel
from trainkit.fit.predict import TrainedModel
from trainkit.fit.preprocessing import Preprocessing
from trainkit.fit.targets import TargetScaler
from trainkit.fit.transfer import NETWORK
from trainkit.nn.build import build_model
from trainkit.nn.heads import replace_head
from trainkit.spec.models import ModelSpec

FORMAT = "trainkit-model-1"
PREPROCESS = "preprocess."
MANIFEST = "model.json"
TENSORS = "model.safetensors"


class ArtifactError(ValueError):
    """A folder that holds no model this version can read."""


def save_model(model: TrainedModel, folder: Path) -> Path:
    """Write the two files; the manifest last, so that a folder with a manifest is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {
        NETWORK + name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in model.network.state_dict().items()
    }
    preprocess, arrays = model.preprocessing.state()
    for name, array in arrays.items():
        tensors[PREPROCESS + name] = torch.from_numpy(np.array(array))
    save_file(tensors, folder / TENSORS, {"format": FORMAT})
    manifest = {
        "format": FORMAT,
        "kind": "network",
        **model.description,
        "classes": None if model.classes is None else list(model.classes),
        "encoder": model.encoder.state(),
        "preprocess": preprocess,
        "target_scaler": None if model.scaler is None else model.scaler.state(),
    }
    write_manifest(folder, manifest)
    return folder


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """model.json, atomically, as strict JSON: a metric that is not finite becomes null."""
    temporary = folder / f".{MANIFEST}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(_strict(manifest), file, indent=1, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MANIFEST)
    sync_folder(folder)


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_model(folder: str | Path) -> TrainedModel | EnsembleModel:
    """The model that `save` wrote. Raises ArtifactError for a folder without one."""
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder} holds no readable {MANIFEST}: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtifactError(f"{folder / MANIFEST} is not a model of this version ({FORMAT})")
    if manifest["kind"] == "ensemble":
        members = [load_model(folder / f"member-{number}") for number in range(len(manifest["members"]))]
        return EnsembleModel(members, manifest["method"], manifest["weights"], manifest["description"])
    try:
        tensors = load_file(folder / TENSORS)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{folder / TENSORS} cannot be read: {error}") from error
    return _network_model(manifest, tensors)


def _network_model(manifest: dict[str, Any], tensors: dict[str, Tensor]) -> TrainedModel:
    spec: ModelSpec = TypeAdapter(ModelSpec).validate_python(manifest["model"])
    # The weights are overwritten below; seed 0 only has to give the shapes.
    network = build_model(spec, tuple(manifest["input_shape"]), manifest["outputs"], seed=0)
    if manifest["head_hidden"]:
        replace_head(network, manifest["head_hidden"], manifest["outputs"], seed=0)
    network.load_state_dict({k.removeprefix(NETWORK): t for k, t in tensors.items() if k.startswith(NETWORK)})
    arrays = {k.removeprefix(PREPROCESS): t.numpy() for k, t in tensors.items() if k.startswith(PREPROCESS)}
    own = ("format", "kind", "classes", "encoder", "preprocess", "target_scaler")
    return TrainedModel(
        network=network,
        encoder=encoder_from_state(manifest["encoder"]),
        preprocessing=Preprocessing.from_state(manifest["preprocess"], arrays),
        scaler=None if manifest["target_scaler"] is None else TargetScaler.from_state(manifest["target_scaler"]),
        classes=None if manifest["classes"] is None else tuple(manifest["classes"]),
        description={key: value for key, value in manifest.items() if key not in own},
    )
