"""From a resolved spec and a dataset to resident parts: split, encode, balance, scale, preprocess, in that order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.data import Dataset, ImageInputs, Inputs, TableInputs, class_weights, rebalance, split_indices
from trainkit.data.duplicates import digests
from trainkit.data.errors import data_error
from trainkit.data.splits import Parts, without_duplicates
from trainkit.fit.encoding.encode import Encoded, Encoder, ImageTableEncoder, as_float, encode, fit_encoder
from trainkit.fit.encoding.preprocessing import Preprocessing
from trainkit.fit.encoding.table_encoder import TableEncoder
from trainkit.fit.encoding.targets import TargetScaler, read_targets
from trainkit.spec import JobSpec
from trainkit.spec.facts import DatasetFacts, column_steps, feature_columns, sample_of

FLOAT_BYTES = 1 << 30
"""Inputs whose float form is at most this large are converted once; larger images stay uint8 until their batch."""


@dataclass
class Part:
    """One part, resident on a device. `x` is ready for the network, or raw when `pending` is set."""

    name: Literal["train", "val", "test", "target"]
    x: Tensor
    side_input: Tensor | None
    """What goes with x into the network: true lengths (n,) of padded sequences, on the CPU, or columns (n, d)."""
    targets: Tensor
    """(n,) int64 class indices, or (n, k) float32 scaled values."""
    truth: NDArray[Any]
    """The same in the user's units: class indices, or (n, k) float64."""
    pending: bool
    """Whether preprocessing is still to be applied to a batch."""
    index: NDArray[np.int64]
    """(n,) the samples' row numbers in the dataset."""

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Inputs (B, ...) as float and second inputs of the given rows; x is yet to be preprocessed when pending."""
        side_input = None if self.side_input is None else self.side_input[rows.to(self.side_input.device)]
        return as_float(self.x[rows]), side_input


def make_part(
    name: Literal["train", "val", "test", "target"],
    encoded: Encoded,
    targets: Tensor,
    truth: NDArray[Any],
    index: NDArray[np.int64],
    preprocessing: Preprocessing,
    *,
    augmented: bool,
    device: torch.device,
) -> Part:
    """Move inputs to `device`; preprocess them once where no augmentation stands before it and the floats fit."""
    floats = encoded.x.numel() * 4
    once = not augmented and floats <= FLOAT_BYTES
    x = preprocessing.apply_all(encoded.x) if once else encoded.x
    if not bool(np.isfinite(truth).all()):
        raise ValueError(f"the targets of the {name} part hold values that are not finite")
    side_input = preprocessing.side_input(encoded.side_input)
    if side_input is not None and preprocessing.columns is not None:
        side_input = side_input.to(device)
    return Part(name, x.to(device), side_input, targets.to(device), truth, pending=not once, index=index)


@dataclass
class Prepared:
    """Everything that is known before the network is built."""

    train: Part
    val: Part | None
    test: Part | None
    draw: Tensor
    """Rows of the training part that an epoch visits: each once, or repeated / left out by re-balancing."""
    encoder: Encoder
    preprocessing: Preprocessing
    scaler: TargetScaler | None
    classes: tuple[str, ...] | None
    class_weights: Tensor | None
    sample_shape: tuple[int, ...]
    """One sample as the network sees it."""
    columns: int
    """Values that the network reads beside an image."""
    facts: DatasetFacts
    """Of the dataset that the parts are of; windows where it forecasts."""

    @property
    def outputs(self) -> int:
        """Width of the network's output."""
        return len(self.classes) if self.classes is not None else int(self.train.targets.shape[1])


def prepare(spec: JobSpec, data: Dataset, device: torch.device, phase: Callable[[str], None]) -> Prepared:
    """Read, split and fit on the training part. `spec` is resolved. Raises DataError for values that are not finite."""
    phase("preparing data")
    targets = read_targets(spec, data)
    parts = cut_parts(spec, data, targets.values if targets.classes is not None else None, targets.labelled)
    if not len(parts.train):
        message = "the training part has no sample with a target"
        raise data_error("no_training_samples", message, "split", "Split differently, or add the targets.")
    encoder = fit_encoder(spec, data, parts.train)
    form = "vector" if isinstance(data.inputs, TableInputs) else sample_of(spec, data.facts).form
    phase("fitting preprocessing")
    encoded = encode(encoder, data.inputs, parts.train)
    refuse_non_finite(encoded, encoder, parts.train)
    of_columns = column_steps(spec) if spec.model.kind == "multimodal" else None
    rows = encoder.columns if isinstance(encoder, ImageTableEncoder) else encoder
    indicators = rows.indicators if isinstance(rows, TableEncoder) else None
    preprocessing = Preprocessing.fit((spec.preprocess or ()), encoded, form, of_columns, indicators)
    raw_shape = tuple(encoded.x.shape[1:])

    scaler = None
    if targets.classes is None:
        scaler = TargetScaler.fit(spec.target_scaling, targets.values[parts.train])

    def part(name: Any, index: NDArray[np.int64], encoded_part: Encoded) -> Part:
        truth = targets.values[index]
        values = torch.from_numpy(truth if scaler is None else scaler.apply(truth))
        augmented = name == "train" and bool(spec.augment)
        return make_part(name, encoded_part, values, truth, index, preprocessing, augmented=augmented, device=device)

    def held_out(name: str, index: NDArray[np.int64]) -> Part | None:
        if not len(index):
            return None
        encoded_part = encode(encoder, data.inputs, index)
        refuse_non_finite(encoded_part, encoder, index)
        return part(name, index, encoded_part)

    positions = np.arange(len(parts.train))
    weights = None
    if targets.classes is not None:
        labels_of_training, balance = targets.values[parts.train], spec.balance
        if isinstance(balance, dict):
            by_class = np.array([balance[name] for name in targets.classes])
            weights = torch.from_numpy(by_class).to(torch.float32).to(device)
        elif balance == "class_weights":
            by_class = class_weights(labels_of_training, len(targets.classes))
            weights = torch.from_numpy(by_class).to(torch.float32).to(device)
        elif balance != "none":
            positions = rebalance(positions, labels_of_training, balance, spec.train.seed)
    return Prepared(
        train=part("train", parts.train, encoded),
        val=held_out("val", parts.validation),
        test=held_out("test", parts.test),
        draw=torch.from_numpy(np.asarray(positions, np.int64)),
        encoder=encoder,
        preprocessing=preprocessing,
        scaler=scaler,
        classes=targets.classes,
        class_weights=weights,
        sample_shape=preprocessing.output_shape(raw_shape),
        columns=preprocessing.columns_width(encoded.side_input),
        facts=data.facts,
    )


def cut_parts(
    spec: JobSpec, data: Dataset, labels: NDArray[Any] | None, labelled: NDArray[np.int64] | None = None
) -> Parts:
    """Cut a dataset into the spec's parts, as its samples' row numbers.

    Args:
        labels: (n,) class indices of all samples, by which parts are stratified; None for numbers.
        labelled: The samples that have a target; the others are in no part. None: all.
    """
    samples, shipped = data.facts.samples, data.split
    if labelled is not None:
        samples, labels = len(labelled), None if labels is None else labels[labelled]
        shipped = None if shipped is None else np.asarray(shipped)[labelled]
    parts = split_indices(spec.split, samples, labels, shipped)
    if labelled is not None:
        parts = Parts(labelled[parts.train], labelled[parts.validation], labelled[parts.test])
    if spec.split.duplicates == "drop":
        parts = without_duplicates(parts, digests(inputs_read(spec, data)))
    return parts


def inputs_read(spec: JobSpec, data: Dataset) -> Inputs:
    """The dataset's inputs without the columns beside images that the model does not read."""
    inputs = data.inputs
    if not isinstance(inputs, ImageInputs) or inputs.columns is None:
        return inputs
    if spec.model.kind != "multimodal":
        return ImageInputs(inputs.pixels)
    chosen = {column.name: inputs.columns.columns[column.name] for column in feature_columns(spec, data.facts)}
    return ImageInputs(inputs.pixels, TableInputs(chosen, inputs.columns.format))


def refuse_non_finite(encoded: Encoded, encoder: Encoder, index: NDArray[np.int64]) -> None:
    """One NaN among the inputs makes every weight NaN at the first step: say where it is instead."""
    names = encoder.feature_names() if isinstance(encoder, TableEncoder | ImageTableEncoder) else None
    values = encoded.side_input if isinstance(encoder, ImageTableEncoder) else encoded.x
    if values is None or values.dtype == torch.uint8:
        return
    bad = ~torch.isfinite(values)
    if not bool(bad.any()):
        return
    place = bad.nonzero()[0].tolist()
    column = f'column "{names[place[1]]}"' if names else f"position {place[1:]}"
    raise data_error(
        "not_finite",
        f"the value is {float(values[tuple(place)])}",
        f"sample {int(index[place[0]])}, {column}",
        "Remove the sample, correct the value, or fill gaps.",
    )
