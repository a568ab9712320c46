"""Reference networks: a small CNN for images, a GRU for sequences, trained by `fit` itself with sensible defaults."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.data import ArrayInputs, ImageInputs, Inputs, SequenceInputs
from trainkit.data.dataset import make_dataset
from trainkit.fit.control import Command
from trainkit.fit.references.models import Clock, OutOfTimeError
from trainkit.fit.references.samples import Index, ReferenceSamples
from trainkit.spec import JobSpec

MOST_SAMPLES = 4000
"""Of the training part: an epoch must be short against the time there is."""
MOST_SIDE = 48
"""Of images, in pixels."""
EPOCHS, BATCH, PATIENCE = 60, 64, 8
STOP_SHARE = 0.8
"""Of the time left, after which training stops; the rest is for the answers."""


class _EndOfTime:
    """The control of a reference's training: it is cancelled when the clock says so."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def command(self) -> Command | None:
        return {"action": "cancel"} if self._clock.left <= 0 or self._clock.interrupted() else None


def document_of(spec: JobSpec, samples: ReferenceSamples, seconds: float, threads: int) -> dict[str, Any]:
    """The spec of the reference network. Its validation part, which stops it, is held out of the job's training part."""
    recurrent = samples.form == "sequence"
    count = min(len(samples.index), MOST_SAMPLES)
    return {
        "dataset": "reference",
        "task": "regression" if samples.classes is None else spec.task,
        "split": {"train": 8, "validation": 1, "test": 1},
        "preprocess": ["z_score"] if recurrent else [],
        "model": {"kind": "gru", "hidden": 64} if recurrent else {"kind": "cnn"},
        "optimizer": {"kind": "adam", "lr": 3e-3},
        "schedule": {"kind": "reduce_on_plateau", "monitor": "val_loss", "factor": 0.3, "patience": 2},
        "train": {
            "epochs": EPOCHS,
            "batch_size": BATCH if count >= 1000 else 32,
            "seed": samples.seed % 2**31,
            "threads": threads,
            "checkpoint_seconds": 0,
            "log_stats": "none",
            "clip_norm": 1.0,
        },
        "early_stop": [
            {"kind": "diverged"},
            {"kind": "patience", "monitor": "val_loss", "patience": PATIENCE},
        ],
        "resources": {"device": spec.resources.device, "max_seconds": max(seconds, 0.1)},
    }


def fit_network(
    spec: JobSpec, samples: ReferenceSamples, fitted: Index, held: Index, clock: Clock, threads: int
) -> tuple[Tensor, Tensor, bool]:
    """Train on the rows `fitted` of the training part; answers for its rows `held`, and for the validation part.

    The third value: whether training ended by itself, not for lack of time. Raises OutOfTimeError.
    """
    from trainkit.fit.loop.fit import fit

    clock.check()
    random = np.random.default_rng(samples.seed)
    if len(fitted) > MOST_SAMPLES:
        keeps_order = samples.lags is not None
        fitted = fitted[-MOST_SAMPLES:] if keeps_order else np.sort(random.choice(fitted, MOST_SAMPLES, replace=False))
    rows = np.concatenate([samples.index[fitted], samples.index[held], samples.held_index])
    truth = np.concatenate([samples.y[fitted], samples.y[held], samples.held_y])
    ends = np.cumsum([len(fitted), len(held), len(samples.held_index)])
    data = make_dataset(
        *_taken(samples.data.inputs, rows),
        truth,
        None if samples.classes is None else [str(k) for k in range(samples.classes)],
        np.repeat(np.arange(3), np.diff(ends, prepend=0)),
        channels=samples.data.facts.channels,
    )
    with torch.random.fork_rng(devices=[]):
        result = fit(document_of(spec, samples, clock.left * STOP_SHARE, threads), data, control=_EndOfTime(clock))
    if result.model is None:
        raise OutOfTimeError
    answers = torch.from_numpy(result.model.answer_rows(data.inputs, np.arange(ends[0], ends[2])))
    return answers[: len(held)], answers[len(held) :], result.stop_reason != "time_limit"


def _taken(inputs: Inputs, rows: Index) -> tuple[str, Inputs]:
    """The kind of a dataset of some of the rows, and its inputs; large images of one byte a pixel are averaged."""
    if isinstance(inputs, ImageInputs):
        return "images", ImageInputs(_shrunk(inputs.pixels, rows, (1, 2)))
    if isinstance(inputs, ArrayInputs):
        shrinks = inputs.values.dtype == np.uint8 and inputs.values.ndim in (3, 4)
        values = _shrunk(inputs.values, rows, (-2, -1)) if shrinks else np.ascontiguousarray(inputs.values[rows])
        return "arrays", ArrayInputs(values)
    assert isinstance(inputs, SequenceInputs)  # columns have no network among the references
    return "sequences", _sequences(inputs, rows)


def _shrunk(pixels: NDArray[Any], rows: Index, sides: tuple[int, int]) -> NDArray[Any]:
    """Means of squares of pixels, so that no side is above `MOST_SIDE`; what is left at the edges is cut off."""
    height, width = (axis % pixels.ndim for axis in sides)
    factor = -(-max(pixels.shape[height], pixels.shape[width]) // MOST_SIDE)
    if factor == 1 or min(pixels.shape[height], pixels.shape[width]) < factor:
        return np.ascontiguousarray(pixels[rows])
    shape = list(pixels.shape[1:])
    cut = [slice(None)] * (pixels.ndim - 1)
    for axis in (height, width):
        cut[axis - 1] = slice(shape[axis - 1] // factor * factor)
        shape[axis - 1] //= factor
    found = np.empty((len(rows), *shape), pixels.dtype)
    blocks = [
        part for axis, side in enumerate(shape, 1) for part in ((side, factor) if axis in (height, width) else (side,))
    ]
    means = (height, width + 1)
    for out, row in zip(found, rows.tolist(), strict=True):
        image = pixels[row][tuple(cut)].reshape(blocks)
        out[...] = np.rint(image.mean(means, dtype=np.float32))
    return found


def _sequences(inputs: SequenceInputs, rows: NDArray[np.int64]) -> SequenceInputs:
    cuts = [inputs.values[inputs.offsets[row] : inputs.offsets[row + 1]] for row in rows.tolist()]
    offsets = np.concatenate([[0], np.cumsum([len(cut) for cut in cuts])])
    return SequenceInputs(np.concatenate(cuts), offsets.astype(np.int64))
