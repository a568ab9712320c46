"""The samples that reference models read: the job's own training and validation parts, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from trainkit.data import Dataset, SequenceInputs, TableInputs
from trainkit.fit.encoding.encode import (
    ArrayEncoder,
    Encoder,
    ImageEncoder,
    ImageTableEncoder,
    as_float,
    encode,
    fit_encoder,
)
from trainkit.fit.encoding.forecast import as_windows
from trainkit.fit.encoding.prepare import cut_parts
from trainkit.fit.encoding.targets import read_targets
from trainkit.fit.seeding import derive
from trainkit.spec import JobSpec
from trainkit.spec.forecasting import cuts_windows
from trainkit.spec.preprocess import Impute

Index = NDArray[np.int64]
MOST_SAMPLES = 10_000
"""Of either part; of a larger one a random share is read."""
MOST_VALUES = 8_000_000
"""Features of all samples of a part: 64 MB in double precision."""
PIXEL_VALUES = 64
"""So many pixels of one byte count as one value: 512 MB of images are read in all, a chunk at a time."""
CHUNK_VALUES = 1 << 22
PIXELS = 400
"""Images are averaged to squares of about so many values."""
RAW_STEPS = 256
"""Sequences of one length with at most so many values are also read as they are; of windows the last ones."""
WIDEST = 400
"""More features are projected on the training part's first principal components."""
COMPONENTS = 200


@dataclass(frozen=True, slots=True)
class Lags:
    """Windows (n, steps, features), read as rows of steps * features; the last `targets` features are forecast."""

    steps: int
    features: int
    targets: int
    horizon: int


@dataclass(frozen=True, slots=True)
class ReferenceSamples:
    """Training and validation part. x (n, d) float64; y class indices (n,), or numbers (n, k) in the user's units."""

    x: Tensor
    y: NDArray[Any]
    held_x: Tensor
    held_y: NDArray[Any]
    classes: int | None
    """None: numbers."""
    form: str
    """vector, image or sequence"""
    data: Dataset
    """What the rows are of: windows where the spec forecasts."""
    index: Index
    """(n,) the training samples' rows in `data`."""
    held_index: Index
    train_share: float
    """Share of the training part that was read."""
    lags: Lags | None
    """Set where windows were cut: the samples are in the order of time, and overlap."""
    seed: int


def read_samples(spec: JobSpec, data: Dataset, check: Callable[[], None] = lambda: None) -> ReferenceSamples | None:
    """Cut a dataset as the job does, and read both parts. None without a validation or training part.

    `spec` is resolved; `check` is called now and then, and may raise. Balancing is not applied, gaps are filled as
    `impute` does, and neither the job's preprocessing nor its test part is looked at.
    """
    windows = cuts_windows(spec, data.facts)
    data = as_windows(spec, data) if spec.task == "forecasting" else data
    targets = read_targets(spec, data)
    parts = cut_parts(spec, data, targets.values if targets.classes is not None else None, targets.labelled)
    if not len(parts.train) or not len(parts.validation):
        return None
    seed = derive(spec.split.seed, "references")
    random = np.random.default_rng(seed)
    width = _width(spec, data)
    index = _some(parts.train, width, random, latest=windows)
    held_index = _some(parts.validation, width, random, latest=False)
    form, x, held_x = _features(spec, data, index, held_index, windows, check)
    lags = None
    if windows:
        steps, features = int(data.facts.input_shape[0]), int(data.facts.input_shape[1])  # type: ignore[index]
        kept = x.shape[1] // features
        lags = Lags(min(steps, kept), features, int(targets.values.shape[1]), spec.dataset.horizon)
    return ReferenceSamples(
        x,
        targets.values[index],
        held_x,
        targets.values[held_index],
        None if targets.classes is None else len(targets.classes),
        form,
        data,
        index,
        held_index,
        len(index) / len(parts.train),
        lags,
        seed,
    )


def _some(index: Index, width: int, random: np.random.Generator, *, latest: bool) -> Index:
    """At most as many as the memory allows, in order: at random, or of windows the last, which continuous time wants."""
    most = max(50, min(MOST_SAMPLES, MOST_VALUES // max(width, 1)))
    if len(index) <= most:
        return index
    return index[-most:] if latest else np.sort(random.choice(index, most, replace=False))


def _width(spec: JobSpec, data: Dataset) -> int:
    """Values that a sample takes before it is reduced."""
    if isinstance(data.inputs, SequenceInputs):
        return 11 * int(data.inputs.values.shape[1]) + RAW_STEPS
    if isinstance(data.inputs, TableInputs):
        columns = data.inputs.columns.values()
        return sum(1 if column.categories is None else len(column.categories) + 1 for column in columns)
    values: int = math.prod(data.facts.input_shape or (1,))
    return values // (PIXEL_VALUES if data.facts.input_dtype == "uint8" else 2) + 1


def _features(
    spec: JobSpec, data: Dataset, index: Index, held_index: Index, windows: bool, check: Callable[[], None]
) -> tuple[str, Tensor, Tensor]:
    if isinstance(data.inputs, SequenceInputs):
        if windows:
            return "sequence", _lags(data.inputs, index), _lags(data.inputs, held_index)
        inputs = data.inputs
        return "sequence", _sequence_features(inputs, index, check), _sequence_features(inputs, held_index, check)
    steps: dict[str, Any] = {}
    if isinstance(data.inputs, TableInputs):
        steps["preprocess"] = (Impute(),)
    elif spec.model.kind == "multimodal":
        steps["preprocess_columns"] = (Impute(),)
    encoder = fit_encoder(spec.model_copy(update=steps), data, index)
    x, held_x = (_read(encoder, data, rows, check) for rows in (index, held_index))
    is_image = isinstance(encoder, ImageEncoder | ImageTableEncoder) or (
        isinstance(encoder, ArrayEncoder) and len(encoder.shape) == 3
    )
    return ("image" if is_image else "vector"), x, held_x


def _read(encoder: Encoder, data: Dataset, rows: Index, check: Callable[[], None]) -> Tensor:
    """(n, d): the values of vectors, the pooled pixels of images with the columns beside them. Gaps of arrays are 0."""
    size = max(1, CHUNK_VALUES // max(1, math.prod(data.facts.input_shape or (1,))))
    found = []
    for start in range(0, len(rows), size):
        check()
        encoded = encode(encoder, data.inputs, rows[start : start + size])
        x = as_float(encoded.x)
        x = (_pooled(x) if x.ndim == 4 else x).flatten(1).double()
        if isinstance(encoder, ImageTableEncoder) and encoded.side_input is not None:
            x = torch.cat([x, encoded.side_input.double()], 1)
        found.append(torch.nan_to_num(x))
    return torch.cat(found)


def _pooled(x: Tensor) -> Tensor:
    """Images (n, C, H, W), averaged to at most about `PIXELS` values each."""
    _, channels, height, width = x.shape
    if channels * height * width <= PIXELS:
        return x
    scale = math.sqrt(PIXELS / (channels * height * width))
    sides = max(1, min(height, round(height * scale))), max(1, min(width, round(width * scale)))
    pooled: Tensor = adaptive_avg_pool2d(x, sides)
    return pooled


def _lags(inputs: SequenceInputs, index: Index) -> Tensor:
    """(n, steps * F): the last steps of each window, the earliest first."""
    length = int(inputs.offsets[1] - inputs.offsets[0])
    steps = max(1, min(length, max(RAW_STEPS, 2 * inputs.values.shape[1]) // inputs.values.shape[1]))
    ends = inputs.offsets[index + 1]
    rows = ends[:, None] + np.arange(-steps, 0)
    return torch.from_numpy(np.asarray(inputs.values[rows.reshape(-1)], np.float64).reshape(len(index), -1))


def _sequence_features(inputs: SequenceInputs, index: Index, check: Callable[[], None]) -> Tensor:
    """(n, 10 F + 1): of each feature mean, deviation, least, largest, first, last, slope, mean absolute difference,
    largest difference and lag-1 correlation, and the length; and the values where all sequences have one short length.
    """
    lengths = np.diff(inputs.offsets)
    width = inputs.values.shape[1]
    raw = int(lengths[0]) if (lengths == lengths[0]).all() and lengths[0] * width <= RAW_STEPS else 0
    rows = np.empty((len(index), 10 * width + 1 + raw * width))
    for row, sample in zip(rows, index, strict=True):
        check()
        values = np.asarray(inputs.values[inputs.offsets[sample] : inputs.offsets[sample + 1]], np.float64)
        row[: 10 * width + 1] = _summary(values)
        row[10 * width + 1 :] = values.reshape(-1) if raw else 0
    return torch.nan_to_num(torch.from_numpy(rows))


def _summary(values: NDArray[np.float64]) -> NDArray[np.float64]:
    steps, width = values.shape
    if not steps:
        return np.zeros(10 * width + 1)
    changes = np.abs(np.diff(values, axis=0)) if steps > 1 else np.zeros((1, width))
    time = np.arange(steps) - (steps - 1) / 2
    centred = values - values.mean(0)
    square = (centred**2).sum(0)
    slope = time @ centred / max(float(time @ time), 1e-12)
    lagged = (centred[1:] * centred[:-1]).sum(0) / np.where(square > 0, square, 1.0)
    found = (
        *(values.mean(0), values.std(0), values.min(0), values.max(0), values[0], values[-1]),
        *(slope, changes.mean(0), changes.max(0), lagged),
    )
    return np.concatenate([*found, [float(steps)]])


def projected(x: Tensor, held_x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Both parts on the first principal components of the standardised first one (randomised SVD), if it is wide."""
    if x.shape[1] <= WIDEST:
        return x, held_x
    mean, std = x.mean(0), x.std(0, correction=0)
    std = torch.where(std > 0, std, torch.ones_like(std))
    x, held_x = (x - mean) / std, (held_x - mean) / std
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, _, directions = torch.svd_lowrank(x, q=max(1, min(COMPONENTS, len(x) // 2, x.shape[1])), niter=2)
    return x @ directions, held_x @ directions
