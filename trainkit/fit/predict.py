"""A trained model: everything from what a client sends to labels, probabilities or values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainkit.fit.encode import Encoded, Encoder, as_float, encode, parse
from trainkit.fit.evaluate import batch_rows
from trainkit.fit.metrics import probabilities
from trainkit.fit.preprocessing import Preprocessing
from trainkit.fit.targets import TargetScaler
from trainkit.nn.network import Network

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

    def predict(self, x: Any) -> list[Prediction]:
        """Label and probabilities, or value, for one input or many.

        Takes arrays, table rows (objects by column name), PIL images or pixel arrays of any size, sequences.
        Raises ValueError, saying which input and why, for what the model cannot read.
        """
        return self.predictions(self.outputs(x))

    def outputs(self, x: Any) -> NDArray[np.float32]:
        """Raw outputs (n, K) before softmax or target scaling."""
        return self.outputs_of(parse(self.encoder, x))

    @torch.inference_mode()
    def outputs_of(self, encoded: Encoded) -> NDArray[np.float32]:
        """Raw outputs (n, K) of encoded inputs."""
        size = batch_rows(tuple(encoded.x.shape[1:]))
        out = []
        for start in range(0, len(encoded.x), size):
            x = self.preprocessing(as_float(encoded.x[start : start + size])).to(self.device)
            lengths = None if encoded.lengths is None else encoded.lengths[start : start + size]
            out.append(self.network(x, lengths).float().cpu())
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
        from trainkit.fit.artifact import save_model

        return save_model(self, Path(folder))


def as_predictions(
    shares: NDArray[np.float64], labels: NDArray[np.integer[Any]], classes: tuple[str, ...]
) -> list[Prediction]:
    """`[{label, probabilities}]` of probabilities (n, K) and class indices (n,)."""
    return [
        {"label": classes[int(label)], "probabilities": dict(zip(classes, row.tolist(), strict=True))}
        for row, label in zip(shares, labels, strict=True)
    ]
