"""A trained model: everything from what a client sends to labels, probabilities or values."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainkit.data.image_rows import ImageRows, image_rows
from trainkit.data.table.request_rows import TableRows, records_of
from trainkit.data.table.table_format import SequenceTable
from trainkit.files import sync_folder
from trainkit.fit.encoding.encode import (
    Encoded,
    Encoder,
    ImageEncoder,
    ImageTableEncoder,
    SequenceEncoder,
    as_float,
    encode,
    encoder_from_state,
    parse,
)
from trainkit.fit.encoding.preprocessing import Preprocessing
from trainkit.fit.encoding.table_encoder import RowWarnings, TableEncoder
from trainkit.fit.encoding.targets import TargetScaler
from trainkit.fit.evaluation.evaluate import batch_rows
from trainkit.fit.evaluation.metrics import probabilities
from trainkit.fit.models.transfer import NETWORK, replace_head
from trainkit.nn.build import build_model
from trainkit.nn.network import Network, hidden_widths
from trainkit.spec import JobSpec
from trainkit.spec.facts import DatasetFacts
from trainkit.spec.models import ModelSpec

Prediction = dict[str, Any]
"""`{label, probabilities: {class: p}}` or `{value}` (a list of numbers for several targets)."""


class TrainedModel:
    """A network with its reading, preprocessing and target scaling. It lives on the CPU unless moved with `to`."""

    def __init__(
        self,
        network: Network,
        encoder: Encoder,
        preprocessing: Preprocessing,
        scaler: TargetScaler | None,
        classes: tuple[str, ...] | None,
        description: dict[str, Any],
    ) -> None:
        self.network = network.eval()
        self.encoder = encoder
        self.preprocessing = preprocessing
        self.scaler = scaler
        self.classes = classes
        self.description = description
        """What is written to model.json: architecture, shapes, task, loss, metrics, versions."""

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of each part at the end of training, `{"val": {...}, "test": {...}}`."""
        metrics: dict[str, Any] = self.description.get("metrics", {})
        return metrics

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.network.parameters()).device

    def to(self, device: str | torch.device) -> TrainedModel:
        """Move the network; predictions may differ in the last bits between devices."""
        self.network.to(device)
        return self

    def predict(self, x: Any, *, ignore_extra: bool = False) -> list[Prediction]:
        """Label and probabilities, or value, for one input or many; for rows of a table also `warnings`.

        Takes arrays, table rows (objects by column name), PIL images or pixel arrays of any size, sequences; for a
        multimodal model objects `{"image": ..., "columns": {...}}`.
        `ignore_extra` allows columns that the model does not know. Raises ValueError (for tables an InputError), saying
        which input and why, for what the model cannot read.
        """
        encoded = parse(self.encoder, x, ignore_extra=ignore_extra)
        return with_warnings(self.predictions(self.outputs_of(encoded)), encoded.warnings)

    @property
    def table_encoders(self) -> tuple[TableEncoder, ...]:
        """What reads a table's rows, alone or beside images; empty for models of other data."""
        if isinstance(self.encoder, ImageTableEncoder):
            return (self.encoder.columns,)
        return (self.encoder,) if isinstance(self.encoder, TableEncoder) else ()

    @property
    def image_encoders(self) -> tuple[ImageEncoder, ...]:
        """What reads images; empty for models of other data. With `table_encoders`: images beside the rows of a table."""
        if isinstance(self.encoder, ImageTableEncoder):
            return (self.encoder.image,)
        return (self.encoder,) if isinstance(self.encoder, ImageEncoder) else ()

    @property
    def sequence_table(self) -> SequenceTable | None:
        """How the training file was read, if it was a table in long form."""
        return self.encoder.table if isinstance(self.encoder, SequenceEncoder) else None

    def answer_table(
        self, rows: TableRows | ImageRows, *, ignore_extra: bool
    ) -> tuple[NDArray[np.float64], list[RowWarnings]]:
        """(what `answer` gives, what is to be said of each row)."""
        encoded = parse(self.encoder, rows, ignore_extra=ignore_extra)
        return self._answer(self.outputs_of(encoded)), list(encoded.warnings or ())

    def outputs(self, x: Any) -> NDArray[np.float32]:
        """Raw outputs (n, K) before softmax or target scaling."""
        return self.outputs_of(parse(self.encoder, x))

    @torch.inference_mode()
    def outputs_of(self, encoded: Encoded) -> NDArray[np.float32]:
        """Raw outputs (n, K) of encoded inputs."""
        size = batch_rows(tuple(encoded.x.shape[1:]))
        beside = self.preprocessing.side_input(encoded.side_input)
        out = []
        for start in range(0, len(encoded.x), size):
            x = self.preprocessing(as_float(encoded.x[start : start + size])).to(self.device)
            side_input = None if beside is None else beside[start : start + size]
            if side_input is not None and self.preprocessing.columns is not None:
                side_input = side_input.to(self.device)
            out.append(self.network(x, side_input).float().cpu())
        outputs = self.description["outputs"]
        return torch.cat(out).numpy() if out else np.zeros((0, outputs), np.float32)

    def answer(self, x: Any) -> NDArray[np.float64]:
        """(n, K) probabilities, or (n, k) values in the targets' own units, of what a client sends."""
        return self._answer(self.outputs(x))

    def answer_rows(self, inputs: Any, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """The same of a dataset's rows."""
        return self._answer(self.outputs_of(encode(self.encoder, inputs, index)))

    def _answer(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        return self.probabilities(outputs) if self.scaler is None else self.scaler.invert(outputs)

    def probabilities(self, outputs: NDArray[Any]) -> NDArray[np.float64]:
        """(n, K) class probabilities of raw outputs."""
        return probabilities(outputs, self.description["loss"]["kind"])

    def predictions(self, outputs: NDArray[Any]) -> list[Prediction]:
        """Raw outputs as predictions."""
        if self.classes is None:
            assert self.scaler is not None
            values = self.scaler.invert(outputs)
            return [{"value": float(row[0]) if len(row) == 1 else row.tolist()} for row in values]
        return as_predictions(self.probabilities(outputs), outputs.argmax(1), self.classes)

    def save(self, folder: str | Path) -> Path:
        """Write model.safetensors and model.json into `folder`; `load_model` reads them back."""
        return save_model(self, Path(folder))


def describe_dataset(spec: JobSpec, facts: DatasetFacts) -> dict[str, Any]:
    """What model.json says of the training data: kind, target column of a table, type and layout of arrays."""
    return {
        "kind": facts.kind,
        "target": spec.dataset.target or facts.target,
        "input_dtype": facts.input_dtype,
        "channels": facts.channels,
        "series": facts.series,
    }


def with_warnings(predictions: list[Prediction], warnings: Sequence[RowWarnings] | None) -> list[Prediction]:
    """The predictions, each with what is to be said of its row."""
    if warnings is None:
        return predictions
    return [{**one, "warnings": list(texts)} for one, texts in zip(predictions, warnings, strict=True)]


def as_predictions(
    shares: NDArray[np.float64], labels: NDArray[np.integer[Any]], classes: tuple[str, ...]
) -> list[Prediction]:
    """`[{label, probabilities}]` of probabilities (n, K) and class indices (n,)."""
    return [
        {"label": classes[int(label)], "probabilities": dict(zip(classes, row.tolist(), strict=True))}
        for row, label in zip(shares, labels, strict=True)
    ]


class EnsembleModel:
    """Predicts like a model: `average` of probabilities or values, or `vote` of labels.

    Ties of votes go to the larger mean probability.

    Raises ValueError when the members do not predict the same classes, or the same number of values.
    """

    def __init__(
        self,
        members: Sequence[TrainedModel | EnsembleModel],
        method: Literal["average", "vote"],
        weights: Sequence[float] | None = None,
        description: dict[str, Any] | None = None,
    ) -> None:
        if len(members) < 2:
            raise ValueError("an ensemble has at least two members")
        first: TrainedModel | EnsembleModel = members[0]
        for number, member in enumerate(members):
            if (member.classes is None) != (first.classes is None) or set(member.classes or ()) != set(
                first.classes or ()
            ):
                raise ValueError(
                    f"member {number} predicts {list(member.classes or ['numbers'])}, "
                    f"member 0 predicts {list(first.classes or ['numbers'])}"
                )
        self.members = tuple(members)
        self.method = method
        given = np.ones(len(members)) if weights is None else np.asarray(weights, np.float64)
        self.weights: NDArray[np.float64] = given / given.sum()
        self.classes: tuple[str, ...] | None = first.classes
        self.description = dict(description or {})

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of each part, `{"val": {...}, "test": {...}}`."""
        metrics: dict[str, Any] = self.description.get("metrics", {})
        return metrics

    def predict(self, x: Any, *, ignore_extra: bool = False) -> list[Prediction]:
        """Like `TrainedModel.predict`; a row's warnings are those of all members."""
        warnings = None
        if encoders := self.table_encoders:
            read = image_rows if self.image_encoders else records_of
            answer, warnings = self.answer_table(read(x, encoders[0].names), ignore_extra=ignore_extra)
        else:
            answer = self.answer(x)
        if self.classes is None:
            predictions = [{"value": row[0] if len(row) == 1 else row} for row in answer.tolist()]
        else:
            predictions = as_predictions(answer, answer.argmax(1), self.classes)
        return with_warnings(predictions, warnings)

    @property
    def table_encoders(self) -> tuple[TableEncoder, ...]:
        """Those of the members; empty for models of other data."""
        return tuple(encoder for member in self.members for encoder in member.table_encoders)

    @property
    def image_encoders(self) -> tuple[ImageEncoder, ...]:
        """Those of the members; empty for models of other data."""
        return tuple(encoder for member in self.members for encoder in member.image_encoders)

    @property
    def sequence_table(self) -> SequenceTable | None:
        """The first member's."""
        return self.members[0].sequence_table

    def answer_table(
        self, rows: TableRows | ImageRows, *, ignore_extra: bool
    ) -> tuple[NDArray[np.float64], list[RowWarnings]]:
        """(what `answer` gives, the warnings of all members). A column is unknown if no member knows it."""
        known = {name for encoder in self.table_encoders for name in encoder.format.names}
        answers, warnings_of_members = [], []
        for member in self.members:
            features = {name for encoder in member.table_encoders for name in encoder.format.names}
            answer, warnings = member.answer_table(rows.without(known - features), ignore_extra=ignore_extra)
            answers.append(answer)
            if member.table_encoders:
                warnings_of_members.append(warnings)
        united = [
            _distinct(warning for of_member in of_row for warning in of_member)
            for of_row in zip(*warnings_of_members, strict=True)
        ]
        return self._combine(answers), united

    def answer(self, x: Any) -> NDArray[np.float64]:
        """(n, K) probabilities, or (n, k) values in the targets' own units, of what a client sends."""
        return self._combine([member.answer(x) for member in self.members])

    def answer_rows(self, inputs: Any, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """The same of a dataset's rows."""
        return self._combine([member.answer_rows(inputs, index) for member in self.members])

    def _combine(self, answers: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        if self.classes is None:
            return np.asarray(np.einsum("m,mnk->nk", self.weights, np.stack(answers)))
        each = np.stack(
            [in_order(shares, m.classes, self.classes) for shares, m in zip(answers, self.members, strict=True)]
        )
        mean = np.asarray(np.einsum("m,mnk->nk", self.weights, each))
        if self.method == "average":
            return mean
        votes = np.zeros_like(mean)
        for weight, shares in zip(self.weights, each, strict=True):
            votes[np.arange(len(shares)), shares.argmax(1)] += weight
        # Rounded so that equal sums of weights compare equal; the mean then breaks ties and nothing else.
        broken = np.round(votes, 9) + 1e-10 * mean
        return np.asarray(broken / broken.sum(1, keepdims=True))

    def save(self, folder: str | Path) -> Path:
        """Each member in a folder of its own, and a manifest."""
        folder = Path(folder)
        for number, member in enumerate(self.members):
            member.save(folder / f"member-{number}")
        manifest = {
            "format": FORMAT,
            "kind": "ensemble",
            "method": self.method,
            "weights": self.weights.tolist(),
            "classes": None if self.classes is None else list(self.classes),
            "members": [member.description.get("name", "") for member in self.members],
            "metrics": self.metrics,
            "description": self.description,
        }
        write_manifest(folder, manifest)
        return folder


def _distinct(warnings: Iterable[dict[str, Any]]) -> RowWarnings:
    kept: list[dict[str, Any]] = []
    for warning in warnings:
        if warning not in kept:
            kept.append(warning)
    return tuple(kept)


def in_order(
    shares: NDArray[np.float64], classes: tuple[str, ...] | None, order: tuple[str, ...]
) -> NDArray[np.float64]:
    """Columns of (n, K) moved from one order of classes to another."""
    assert classes is not None
    return shares[:, [classes.index(name) for name in order]]


FORMAT = "trainkit-model-2"
PREPROCESS = "preprocess."
MANIFEST = "model.json"
TENSORS = "model.safetensors"
IN_METADATA = "manifest"
"""Where a single file has its manifest: in the metadata of its header."""


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
    # The classes let whoever has this file alone keep the head. One entry at most: safetensors writes several in random
    # order, and equal models would differ in their bytes.
    metadata = None if model.classes is None else {"classes": json.dumps(list(model.classes))}
    save_file(tensors, folder / TENSORS, metadata)
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


def write_single_file(folder: Path, path: Path) -> Path:
    """Write the model that `save` wrote into `folder` as one safetensors file, which `load_model` reads."""
    manifest = (folder / MANIFEST).read_text(encoding="utf-8")
    save_file(load_file(folder / TENSORS), path, {IN_METADATA: manifest})
    return path


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


def load_model(source: str | Path) -> TrainedModel | EnsembleModel:
    """Read a model.

    Args:
        source: the folder that `save` wrote, or a safetensors file with the manifest in its metadata, as the service's
            `download?format=safetensors` gives.

    Raises:
        ArtifactError: there is no model that this version can read.
    """
    source = Path(source)
    if source.is_file():
        return _single_file_model(source)
    try:
        text = (source / MANIFEST).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{source} holds no readable {MANIFEST}: {error}") from error
    manifest = _parse_manifest(text, str(source / MANIFEST))
    if manifest["kind"] == "ensemble":
        members = [load_model(source / f"member-{number}") for number in range(len(manifest["members"]))]
        return EnsembleModel(members, manifest["method"], manifest["weights"], manifest["description"])
    try:
        tensors = load_file(source / TENSORS)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{source / TENSORS} cannot be read: {error}") from error
    return _network_model(manifest, tensors)


def _single_file_model(path: Path) -> TrainedModel:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
    if IN_METADATA not in metadata:
        raise ArtifactError(
            f"{path} has no {IN_METADATA!r} in its metadata: load the folder that it lies in, or download the model with "
            "format=safetensors"
        )
    return _network_model(_parse_manifest(metadata[IN_METADATA], f"{IN_METADATA!r} of {path}"), tensors)


def _parse_manifest(text: str, name: str) -> dict[str, Any]:
    try:
        manifest = json.loads(text)
    except ValueError as error:
        raise ArtifactError(f"{name} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtifactError(f"{name} is not a model of this version ({FORMAT})")
    return manifest


def _network_model(manifest: dict[str, Any], tensors: dict[str, Tensor]) -> TrainedModel:
    spec: ModelSpec = TypeAdapter(ModelSpec).validate_python(manifest["model"])
    # The weights are overwritten below; seed 0 only has to give the shapes.
    shape, columns = tuple(manifest["input_shape"]), manifest.get("columns", 0)
    network = build_model(spec, shape, manifest["outputs"], seed=0, columns=columns)
    if manifest["head_hidden"] != hidden_widths(network):
        replace_head(network, manifest["head_hidden"], manifest["outputs"], seed=0)
    network.load_state_dict({k.removeprefix(NETWORK): t for k, t in tensors.items() if k.startswith(NETWORK)})
    arrays = {k.removeprefix(PREPROCESS): t.numpy() for k, t in tensors.items() if k.startswith(PREPROCESS)}
    stored = ("format", "kind", "classes", "encoder", "preprocess", "target_scaler")
    return TrainedModel(
        network=network,
        encoder=encoder_from_state(manifest["encoder"]),
        preprocessing=Preprocessing.from_state(manifest["preprocess"], arrays),
        scaler=None if manifest["target_scaler"] is None else TargetScaler.from_state(manifest["target_scaler"]),
        classes=None if manifest["classes"] is None else tuple(manifest["classes"]),
        description={key: value for key, value in manifest.items() if key not in stored},
    )
