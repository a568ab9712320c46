"""From a dataset's inputs, or what a client sends to predict, to tensors: images, arrays, sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.data import ArrayInputs, Dataset, ImageInputs, SequenceInputs, TableInputs
from trainkit.data.errors import InputError, InputProblem, input_error
from trainkit.data.image_rows import ImageRows, image_rows
from trainkit.data.layout import Layout
from trainkit.data.table.column_format import CellError
from trainkit.data.table.request_rows import TableRows
from trainkit.data.table.table_format import SequenceTable
from trainkit.fit.encoding.table_encoder import (
    LARGEST_FLOAT32,
    MOST_PROBLEMS,
    RowWarnings,
    TableEncoder,
    check_columns,
    read_cell,
)
from trainkit.spec import JobSpec
from trainkit.spec.facts import column_steps, feature_columns, sample_of
from trainkit.spec.preprocess import Impute

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Inputs of n samples on the CPU: (n, d), (n, C, H, W) or padded (n, T, F). Pixels stay uint8 until used."""

    x: Tensor
    side_input: Tensor | None = None
    """What goes with x: (n,) true lengths of padded sequences (None when all fill T), or (n, d) columns beside images."""
    warnings: tuple[RowWarnings, ...] | None = None
    """What is to be said of each row of a table that a client sent."""


def as_float(x: Tensor) -> Tensor:
    """uint8 pixels to float32 in [0, 1]; anything else as it is."""
    return x.to(torch.float32).div_(255.0) if x.dtype == torch.uint8 else x


class ImageEncoder:
    """Images of one size, uint8 (n, C, H, W)."""

    kind = "images"

    def __init__(self, shape: tuple[int, int, int], channels: Layout = "first") -> None:
        self.shape = shape
        self.channels: Layout = channels
        """Where the training file had them: how arrays are read that could be either."""

    def encode(self, inputs: ImageInputs | ArrayInputs, index: Index) -> Encoded:
        """Copy the chosen images out of the (memory-mapped) dataset; uint8 arrays lie as (n, C, H, W) already."""
        if isinstance(inputs, ArrayInputs):
            values = np.ascontiguousarray(inputs.values[index])
            return Encoded(torch.from_numpy(values).reshape(len(index), *self.shape))
        return Encoded(_channels_first(inputs.pixels[index]))

    def parse(self, x: Any) -> Encoded:
        """PIL images, uint8 arrays 0..255 or floats in [0, 1]: one or many, resized to the trained size.

        Raises InputError for another number of channels or values out of range.
        """
        if isinstance(x, np.ndarray) or _is_nested_numbers(x):
            images = _split_images(_array(x), self.shape, self.channels)
        elif isinstance(x, Sequence):
            images = [part for one in x for part in self._one(one)]
        else:
            images = self._one(x)
        return Encoded(torch.stack([_to_tensor(image, self.shape) for image in images]))

    def parse_rows(self, samples: ImageRows) -> Tensor:
        """The images of a client's samples, (n, C, H, W). Raises InputError."""
        if isinstance(samples.images, np.ndarray) and samples.images.shape[1:3] == self.shape[1:]:
            return _channels_first(with_channels(samples.images, self.shape[0]))
        images, problems = [], []
        for row, image in enumerate(samples.images):
            try:
                images.append(self._pixels(image))
            except InputError as error:
                message = f"{samples.place(row)}: the image cannot be read: {error}"
                problems.append(InputProblem("invalid_input", message, samples.number(row), "image"))
        if problems:
            raise InputError(problems[:MOST_PROBLEMS])
        return _channels_first(
            np.stack(images)
        )  # with the strides of `encode`, by which convolutions choose their kernel

    def resized(self, image: Any) -> Any:
        """A PIL image as one of the trained size: what `parse` makes of it stays the same, and it needs no more memory."""
        pixels = self._pixels(image)
        return image_of(pixels[..., 0] if pixels.shape[2] == 1 else pixels)

    def _pixels(self, image: Any) -> NDArray[np.uint8]:
        """One image as (H, W, C) of the trained size. Raises InputError."""
        parts = self._one(image)
        if len(parts) != 1:
            raise input_error(f"it is {len(parts)} images")
        return np.asarray(_to_tensor(parts[0], self.shape).permute(1, 2, 0).numpy())

    def _one(self, image: Any) -> list[NDArray[Any]]:
        if hasattr(image, "convert"):  # a PIL image, told by what it can do: PIL need not be imported for arrays
            from trainkit.data.decoding import to_pixels

            # As at intake: upright by the EXIF tag, transparency on white. Only then grey from colour, or the reverse.
            pixels = to_pixels(image)
            if self.shape[0] == 1 and pixels.shape[2] == 3:
                pixels = to_pixels(image_of(pixels).convert("L"))
            return [np.repeat(pixels, 3, axis=2) if self.shape[0] == 3 and pixels.shape[2] == 1 else pixels]
        return _split_images(_array(image), self.shape, self.channels)

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "shape": list(self.shape), "channels": self.channels}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ImageEncoder:
        channels, height, width = state["shape"]
        return cls((channels, height, width), state.get("channels", "first"))


class ArrayEncoder:
    """Numeric arrays (n, ...) as float32; `shape` is the sample's shape for the model, (C, H, W) for images."""

    kind = "arrays"

    def __init__(self, shape: tuple[int, ...], channels: Layout = "first") -> None:
        self.shape = shape
        self.channels: Layout = channels
        """Images: where the training file had the channels, so where a client's arrays have them."""

    def encode(self, inputs: ArrayInputs, index: Index) -> Encoded:
        """(n, ...) float32."""
        values = np.ascontiguousarray(inputs.values[index])
        return Encoded(torch.from_numpy(values.astype(np.float32)).reshape(len(values), *self.shape))

    def parse(self, x: Any) -> Encoded:
        """One sample or many, as nested lists or an array, in the shape of the training file or flat.

        Images may also have their channels at the other end, if the shape shows it. Raises InputError for other shapes,
        and for PIL images: their 0..255 are not the scale of the values that the model was trained on.
        """
        if any(hasattr(one, "convert") for one in (x if isinstance(x, list | tuple) else [x])):
            raise input_error("this model was trained on arrays of numbers, not on image files: send numbers")
        values = _array(x)
        size = int(np.prod(self.shape))
        if values.ndim == 1 and size == 1:
            values = values[:, None]
        elif values.ndim <= 1 or (values.size == size and self._axes(values.shape) is not None):
            values = values[None]
        axes = self._axes(values.shape[1:])
        if axes is None:
            got = f"shape {list(values.shape[1:])}" if values.ndim > 2 else f"{values.shape[-1]} numbers"
            raise input_error(f"each sample has {size} numbers (shape {self._expected()}), got {got}")
        shape, order = axes
        values = finite(values).reshape(len(values), *shape).transpose(0, *(axis + 1 for axis in order))
        return Encoded(torch.from_numpy(np.ascontiguousarray(values, np.float32)))

    def _axes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Return (shape to give a sample of `shape`, order of its axes that makes it `self.shape`); None if it is none."""
        straight = tuple(range(len(self.shape)))
        if len(self.shape) != 3:
            # a flat sample, or a flat model: the order of the numbers is the only one there is
            flat = math.prod(shape) == math.prod(self.shape) and 1 in (len(shape), len(self.shape))
            return (self.shape, straight) if flat or shape == self.shape else None
        channels, height, width = self.shape
        first, last = (self.shape, straight), ((height, width, channels), (2, 0, 1))
        likely, other = (last, first) if self.channels == "last" else (first, last)
        if shape in (likely[0], (channels * height * width,)):
            return likely
        if shape == other[0] or (channels == 1 and shape == (height, width)):
            return other if shape == other[0] else first
        return None

    def _expected(self) -> list[int]:
        if self.channels == "last" and len(self.shape) == 3:
            return [*self.shape[1:], self.shape[0]]
        return list(self.shape)

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "shape": list(self.shape), "channels": self.channels}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ArrayEncoder:
        return cls(tuple(state["shape"]), state.get("channels", "first"))


class SequenceEncoder:
    """Sequences of F values a step, padded with zeros to the longest of the batch at hand."""

    kind = "sequences"

    def __init__(self, features: int, fixed: int | None, table: SequenceTable | None = None) -> None:
        self.features = features
        self.fixed = fixed
        """The one length that the model reads (mlp, linear); None when any length will do."""
        self.table = table
        """How the training file was read, if it was a table."""

    def encode(self, inputs: SequenceInputs, index: Index) -> Encoded:
        """(n, T, F) float32 and lengths."""
        starts, ends = inputs.offsets[:-1][index], inputs.offsets[1:][index]
        return self._pad([inputs.values[a:b] for a, b in zip(starts, ends, strict=True)])

    def parse(self, x: Any) -> Encoded:
        """One sequence (T, F), or many of different lengths; (T,) is taken as (T, 1) where F is 1.

        Or the rows of a table like the training file, whose sequences keep their order of appearance. Raises InputError
        for another F or an empty sequence, InputError for rows that are not like those of the training file.
        """
        if isinstance(x, TableRows):
            x = self._sequences(x)
        many = isinstance(x, np.ndarray) and x.ndim == 3
        if not many:
            many = isinstance(x, Sequence) and len(x) > 0 and np.ndim(_first(x)) == (2 if self.features > 1 else 1)
            many = many or (isinstance(x, Sequence) and len(x) > 0 and np.ndim(_first(x)) == 2)
        sequences = [_array(one).astype(np.float64) for one in (x if many else [x])]
        sequences = [one[:, None] if one.ndim == 1 else one for one in sequences]
        for one in sequences:
            if one.ndim != 2 or one.shape[1] != self.features or len(one) == 0:
                raise input_error(f"a sequence has shape (T, {self.features}) with T >= 1, got {one.shape}")
            if self.fixed is not None and len(one) != self.fixed:
                raise input_error(f"this model reads sequences of {self.fixed} steps, got {len(one)}")
            finite(one)
        return self._pad(sequences)

    def _sequences(self, rows: TableRows) -> list[NDArray[np.float64]]:
        """Group the rows of a table by their id."""
        if self.table is None:
            raise input_error("the model was not trained on a table: send each sequence as a list of steps")
        table, features = self.table.format, self.table.features
        check_columns(rows, [self.table.id_column, *features], table, ignore_extra=False)
        problems = []
        values: dict[float | str, list[list[float]]] = {}
        for row in range(rows.count):
            step: list[float] = []
            for name in (self.table.id_column, *features):
                try:
                    cell = read_cell(table[name], rows.columns[name][row])
                    if cell is None:
                        raise CellError("has no value")
                    if name == self.table.id_column:
                        steps = values.setdefault(cell, [])
                    else:
                        step.append(float(cell))
                except CellError as error:
                    message = f'{rows.place(row)}: "{name}" {error}'
                    problems.append(InputProblem("invalid_input", message, rows.number(row), name))
            if not problems:
                steps.append(step)
        if problems:
            raise InputError(problems[:MOST_PROBLEMS])
        return [np.array(steps) for steps in values.values()]

    def _pad(self, sequences: Sequence[NDArray[Any]]) -> Encoded:
        lengths = np.array([len(one) for one in sequences], np.int64)
        x = np.zeros((len(sequences), int(lengths.max(initial=0)), self.features), np.float32)
        for row, one in zip(x, sequences, strict=True):
            row[: len(one)] = one
        equal = lengths.size == 0 or bool((lengths == lengths[0]).all())
        return Encoded(torch.from_numpy(x), None if equal else torch.from_numpy(lengths))

    def state(self) -> dict[str, Any]:
        table = None if self.table is None else self.table.model_dump(mode="json")
        return {"kind": self.kind, "features": self.features, "fixed": self.fixed, "table": table}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> SequenceEncoder:
        table = None if state["table"] is None else SequenceTable.model_validate(state["table"])
        return cls(state["features"], state["fixed"], table)


class ImageTableEncoder:
    """Images, uint8 (n, C, H, W), with the columns of their table, float32 (n, d)."""

    kind = "image_table"

    def __init__(self, image: ImageEncoder, columns: TableEncoder) -> None:
        self.image = image
        self.columns = columns

    def encode(self, inputs: ImageInputs, index: Index) -> Encoded:
        """The chosen images and rows. Raises ValueError for a gap where nothing fills it."""
        assert inputs.columns is not None
        return Encoded(self.image.encode(inputs, index).x, self.columns.encode(inputs.columns, index))

    def parse(self, x: Any, *, ignore_extra: bool = False) -> Encoded:
        """Images with their rows: ImageRows, or one or many objects `{"image": ..., "columns": {...}}`.

        Raises InputError for images that cannot be read, and rows that are not like those of the training file.
        """
        samples = image_rows(x, self.columns.names)
        try:
            columns, warnings = self.columns.parse(samples.rows, ignore_extra=ignore_extra)
        except InputError as error:
            raise InputError([replace(problem, within="columns") for problem in error.problems]) from None
        return Encoded(self.image.parse_rows(samples), columns, warnings)

    def feature_names(self) -> list[str]:
        """One name for each of the d values of the columns."""
        return self.columns.feature_names()

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "image": self.image.state(), "columns": self.columns.state()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ImageTableEncoder:
        return cls(ImageEncoder.from_state(state["image"]), TableEncoder.from_state(state["columns"]))


Encoder = ImageEncoder | ArrayEncoder | SequenceEncoder | TableEncoder | ImageTableEncoder
_KINDS: dict[str, Any] = {
    one.kind: one for one in (ImageEncoder, ArrayEncoder, SequenceEncoder, TableEncoder, ImageTableEncoder)
}


def fit_encoder(spec: JobSpec, data: Dataset, train: Index) -> Encoder:
    """The encoder for this dataset; vocabularies and fill values come from the training part alone."""
    inputs, sample = data.inputs, sample_of(spec, data.facts)
    if isinstance(inputs, TableInputs):
        return _fit_columns(spec, data, inputs, train)
    if isinstance(inputs, ImageInputs):
        _, height, width, channels = inputs.pixels.shape
        image = ImageEncoder((channels, height, width))
        if spec.model.kind != "multimodal":
            return image
        assert inputs.columns is not None  # resolve() has refused images without columns
        return ImageTableEncoder(image, _fit_columns(spec, data, inputs.columns, train))
    if isinstance(inputs, SequenceInputs):
        steps, features = sample.shape
        return SequenceEncoder(features, None if spec.model.kind in ("lstm", "gru") else steps, inputs.table)
    layout = data.facts.channels or "first"
    if inputs.values.dtype == np.uint8 and sample.form == "image":
        channels, height, width = sample.shape
        return ImageEncoder((channels, height, width), layout)
    return ArrayEncoder(sample.shape, layout)


def _fit_columns(spec: JobSpec, data: Dataset, inputs: TableInputs, train: Index) -> TableEncoder:
    impute = next((step for step in column_steps(spec) if isinstance(step, Impute)), None)
    return TableEncoder.fit(inputs, feature_columns(spec, data.facts), impute, train)


def encode(encoder: Encoder, inputs: Any, index: Index) -> Encoded:
    """`encoder.encode`, for whichever pair of encoder and inputs belongs together."""
    encoded: Encoded | Tensor = encoder.encode(inputs, index)
    return encoded if isinstance(encoded, Encoded) else Encoded(encoded)


def parse(encoder: Encoder, x: Any, *, ignore_extra: bool = False) -> Encoded:
    """`encoder.parse` of what a client sends. `ignore_extra` allows columns of a table that the model does not know."""
    if isinstance(encoder, TableEncoder):
        tensor, warnings = encoder.parse(x, ignore_extra=ignore_extra)
        return Encoded(tensor, warnings=warnings)
    if isinstance(encoder, ImageTableEncoder):
        return encoder.parse(x, ignore_extra=ignore_extra)
    if isinstance(x, ImageRows):
        if not isinstance(encoder, ImageEncoder):
            raise input_error("the model reads no images")
        return Encoded(encoder.parse_rows(x))
    return encoder.parse(x)


def encoder_from_state(state: dict[str, Any]) -> Encoder:
    """Rebuild an encoder from its JSON state."""
    encoder: Encoder = _KINDS[state["kind"]].from_state(state)
    return encoder


def _array(x: Any) -> NDArray[Any]:
    """What a client sent as an array of numbers. Raises InputError for anything else, in words of our own."""
    try:
        values = np.asarray(x)
    except (ValueError, TypeError, OverflowError):  # lists of several lengths, or too deep
        raise input_error("the lists of a sample have several lengths, so that they are no array of numbers") from None
    if values.size == 0 and values.dtype.kind == "f":
        raise input_error("a sample holds no values")
    if values.dtype == object or values.dtype.kind not in "biuf":
        raise input_error("a sample holds something other than numbers")
    return values


def finite(values: NDArray[Any]) -> NDArray[Any]:
    """The values. Raises InputError for NaN, infinity, and numbers beyond the range of float32."""
    bad = ~(np.abs(values.astype(np.float64)) <= LARGEST_FLOAT32)
    if bad.any():
        place = [int(axis[0]) for axis in np.nonzero(bad)]
        shown = ", ".join(str(position) for position in place)
        value = float(values[tuple(place)])
        raise input_error(f"the number at position [{shown}] is {value:g}; numbers are finite and at most 3.4e38")
    return values


def _first(x: Sequence[Any]) -> Any:
    return x[0]


def _is_nested_numbers(x: Any) -> bool:
    while isinstance(x, list | tuple) and x:
        x = x[0]
    return isinstance(x, int | float)


def _split_images(values: NDArray[Any], shape: tuple[int, int, int], layout: Layout) -> list[NDArray[Any]]:
    """One or many images in any usual layout, as a list of (H, W, C); `layout` is that of flat and of doubtful ones."""
    channels, height, width = shape
    if values.ndim in (1, 2) and values.shape[-1] == channels * height * width and values.shape != (height, width):
        values = values.reshape(-1, *(shape if layout == "first" else (height, width, channels)))
    if values.ndim == 2 and channels == 1:
        return [values[..., None]]
    if values.ndim == 3 and channels == 1 and values.shape[-1] != 1 and values.shape[0] != 1:
        return [one[..., None] for one in values]
    if values.ndim == 3:
        values = values[None]
    if values.ndim != 4 or channels not in (values.shape[1], values.shape[3]):
        raise input_error(f"images have {channels} channels and {height} x {width} pixels, got an array {values.shape}")
    is_first, is_last = values.shape[1:] == shape, values.shape[1:] == (height, width, channels)
    if is_first == is_last:  # of another size, or of equal sides: one of the two layouts must have the channels
        is_first = values.shape[3] != channels or (values.shape[1] == channels and layout == "first")
    return list(values.transpose(0, 2, 3, 1) if is_first else values)


def image_of(pixels: NDArray[np.uint8]) -> Any:
    """The PIL image of pixels (H, W, 3), or grey ones (H, W)."""
    from PIL import Image

    return Image.fromarray(pixels)


def with_channels(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Images (n, H, W, C) with 1 or 3 channels; grey from colour by Pillow's weights of red, green and blue."""
    if pixels.shape[3] == channels:
        return pixels
    if pixels.shape[3] == 1:
        return np.repeat(pixels, channels, axis=3)
    return np.stack([np.asarray(image_of(np.asarray(image)).convert("L")) for image in pixels])[..., None]


def _channels_first(pixels: NDArray[np.uint8]) -> Tensor:
    writeable = np.ascontiguousarray(pixels) if pixels.flags.writeable else np.array(pixels)
    return torch.from_numpy(writeable).permute(0, 3, 1, 2).contiguous()


def _to_tensor(image: NDArray[Any], shape: tuple[int, int, int]) -> Tensor:
    """(H, W, C) of any size to (C, H, W) of the trained size; uint8 stays uint8."""
    channels, height, width = shape
    if image.shape[-1] != channels:
        raise input_error(f"images have {channels} channels, got {image.shape[-1]}")
    if image.dtype.kind in "iub":
        if image.size and (image.min() < 0 or image.max() > 255):
            raise input_error("whole-number pixels lie in 0..255")
        image = image.astype(np.uint8)
    else:
        if image.size and not (image.min() >= 0 and image.max() <= 1):
            raise input_error("pixels given as floats lie in [0, 1]; whole numbers lie in 0..255")
        # Rounded to what a stored image can hold: training saw 256 levels.
        image = np.rint(image * 255.0).astype(np.uint8)
    if image.shape[:2] != (height, width):
        from PIL import Image

        planes = [
            np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize((width, height), Image.Resampling.BILINEAR))
            for plane in np.moveaxis(image, -1, 0)
        ]
        return torch.from_numpy(np.stack(planes))
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
