"""ONNX export: preprocessing, network and softmax (or the way back to the targets' units) in one graph."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from trainkit.fit.encoding.encode import ImageTableEncoder
from trainkit.fit.models.trained_model import TrainedModel

LARGEST_BYTES = 1 << 30
"""An ONNX file is one protobuf message, which ends at 2 GiB; halfway there the export is left out."""


class ExportError(RuntimeError):
    """A model that cannot be written as ONNX."""


class _Graph(nn.Module):
    """Encoded inputs -> probabilities (B, K) or values (B, k)."""

    def __init__(self, model: TrainedModel) -> None:
        super().__init__()
        self.network = model.network
        self.preprocessing = model.preprocessing
        self.loss = model.description["loss"]["kind"]
        self.classification = model.classes is not None
        if model.scaler is not None:
            self.register_buffer("shift", torch.from_numpy(model.scaler.shift).float())
            self.register_buffer("scale", torch.from_numpy(model.scaler.scale).float())

    def forward(self, x: Tensor, columns: Tensor | None = None) -> Tensor:
        of_columns = self.preprocessing.columns
        beside = columns if columns is None or of_columns is None else of_columns(columns)
        z: Tensor = self.network(self.preprocessing(x), beside)
        if not self.classification:
            return z * self.get_buffer("scale") + self.get_buffer("shift")
        if self.loss == "binary_cross_entropy":
            shares = z.sigmoid()
        elif self.loss == "mse":
            shares = z.clamp(min=0.0) + 1e-12
        else:
            return z.softmax(1)
        return shares / shares.sum(1, keepdim=True)


OPERATOR = re.compile(r"operator '([\w:.]+)'")


def export_onnx(model: TrainedModel, path: str | Path) -> Path:
    """Write `model` as ONNX: input `x`, output `probabilities` or `values`, any batch size. Multimodal: also `columns`.

    `x` is what the encoder gives, as float32: pixels in [0, 1] (B, C, H, W) of the trained size, vectors (B, d), table
    rows with categories one-hot in the order of the metadata's `features`, sequences (B, T, F) of equal length. The
    metadata's `table` says how text becomes these rows: types, missing words, separators, date formats, fill values.
    Raises ExportError when the exporter is not installed or cannot express the model.
    """
    path = Path(path)
    size = sum(t.numel() * t.element_size() for t in model.network.state_dict().values())
    if size > LARGEST_BYTES:
        raise ExportError(f"the model has {size / 2**30:.1f} GiB, too much for one ONNX file")
    try:
        import onnx
    except ImportError as error:
        raise ExportError("the package onnx is not installed (pip install 'trainkit[onnx]')") from error
    output = "probabilities" if model.classes is not None else "values"
    examples = [torch.zeros(2, *_encoded_shape(model))]
    if isinstance(model.encoder, ImageTableEncoder):
        examples.append(torch.zeros(2, *model.encoder.columns.shape))
    inputs = ["x", "columns"][: len(examples)]
    axes = {name: {0: "batch"} for name in (*inputs, output)}
    if model.encoder.kind == "sequences" and getattr(model.encoder, "fixed", None) is None:
        axes["x"][1] = "steps"
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            # The tracing exporter: the other one takes seconds for the smallest network and gives the same graph.
            torch.onnx.export(
                _Graph(model).eval(),
                tuple(examples),
                str(temporary),
                input_names=inputs,
                output_names=[output],
                dynamic_axes=axes,
                dynamo=False,
            )
        graph = onnx.load(str(temporary))
        onnx.helper.set_model_props(graph, _metadata(model))
        onnx.save(graph, str(temporary))
        temporary.replace(path)
    except Exception as error:  # whatever an exporter stumbles over, the trained model is not to suffer from it
        operator = OPERATOR.search(str(error))
        reason = f"ONNX has no form of its operation {operator[1]}" if operator else "the exporter cannot express it"
        raise ExportError(f"this model cannot be written as ONNX: {reason}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _encoded_shape(model: TrainedModel) -> tuple[int, ...]:
    """One encoded sample, before preprocessing."""
    if isinstance(model.encoder, ImageTableEncoder):
        return tuple(model.encoder.image.shape)
    if model.encoder.kind == "sequences":
        return (int(model.description["input_shape"][0]), model.encoder.features)  # type: ignore[union-attr]
    return tuple(model.encoder.shape)  # type: ignore[union-attr]


def _metadata(model: TrainedModel) -> dict[str, str]:
    """What a reader of the file needs to know, as ONNX metadata."""
    described = {"task": str(model.description["task"]), "made_by": "trainkit"}
    if model.classes is not None:
        described["classes"] = json.dumps(list(model.classes))
    for encoder in model.table_encoders:
        described["features"] = json.dumps(encoder.feature_names())
        described["table"] = json.dumps(encoder.state())
    return described
