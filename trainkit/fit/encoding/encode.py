"""From a dataset's inputs, or what a client sends to predict, to tensors: images, arrays, sequences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.data import ArrayInputs, Dataset, ImageInputs, SequenceInputs, TableInputs
from trainkit.spec import ColumnFacts, JobSpec
from trainkit.spec.facts import feature_columns, sample_of
from trainkit.spec.preprocess import Impute


@dataclass(frozen=True, slots=True)
class NumericColumn:
    """One value a row."""

    name: str
    fill: float | None
    """What replaces a gap; None: gaps are errors."""
    type: str = "numeric"


@dataclass(frozen=True, slots=True)
class CategoricalColumn:
    """One-hot over `vocabulary`; a category the training part did not hold is all zeros."""

    name: str
    vocabulary: tuple[str, ...]
    fill: str | None
    """The category of gaps, or None: gaps are errors."""
    has_gap_category: bool = False
    """Gaps are a category of their own, the last one."""
    type: str = "categorical"

    @property
    def width(self) -> int:
        return len(self.vocabulary) + int(self.has_gap_category)


class TableEncoder:
    """(n, d) float32: the columns in the spec's order, each numeric one value wide, each categorical one-hot."""

    kind = "table"

    def __init__(self, columns: Sequence[NumericColumn | CategoricalColumn]) -> None:
        self.columns = tuple(columns)
        self.shape = (sum(_width(column) for column in self.columns),)

    @classmethod
    def fit(
        cls, inputs: TableInputs, columns: Sequence[ColumnFacts], impute: Impute | None, train: NDArray[np.int64]
    ) -> TableEncoder:
        """Vocabularies (in the dataset's order of categories) and fill values of the training rows."""
        fitted: list[NumericColumn | CategoricalColumn] = []
        for facts in columns:
            column = inputs.columns[facts.name]
            if facts.type == "numeric":
                fitted.append(NumericColumn(facts.name, _numeric_fill(np.asarray(column.values)[train], impute)))
            else:
                fitted.append(
                    _categorical(facts.name, np.asarray(column.values)[train], column.categories or (), impute)
                )
        return cls(fitted)

    def encode(self, inputs: TableInputs, index: NDArray[np.int64]) -> Tensor:
        """The chosen rows. Raises ValueError for a gap where nothing fills it."""
        blocks = []
        for column in self.columns:
            source = inputs.columns[column.name]
            values = np.asarray(source.values)[index]
            if isinstance(column, NumericColumn):
                blocks.append(_numbers(column, values.astype(np.float64)))
            else:
                categories = [*(source.categories or ()), None]  # code -1, a gap, reads the last entry
                blocks.append(_one_hot(column, [categories[code] for code in values]))
        return _join(blocks, len(index))

    def parse(self, x: Any) -> Tensor:
        """One row or a list of rows, each an object of column name to value; a missing key is a gap.

        Rows may also be lists in the columns' order. Raises ValueError naming row and column.
        """
        rows = [x] if isinstance(x, Mapping) else list(x)
        if rows and not isinstance(rows[0], Mapping | Sequence | np.ndarray):
            rows = [rows]
        records = [self._record(row, number) for number, row in enumerate(rows)]
        blocks = []
        for column in self.columns:
            values = [record.get(column.name) for record in records]
            if isinstance(column, NumericColumn):
                numbers = np.array([_to_number(column, value, row) for row, value in enumerate(values)], np.float64)
                blocks.append(_numbers(column, numbers))
            else:
                blocks.append(_one_hot(column, [_to_category(value) for value in values]))
        return _join(blocks, len(records))

    def _record(self, row: Any, number: int) -> Mapping[str, Any]:
        if isinstance(row, Mapping):
            return row
        if len(row) != len(self.columns):
            names = ", ".join(column.name for column in self.columns)
            raise ValueError(f"row {number} has {len(row)} values for {len(self.columns)} columns: {names}")
        return dict(zip((column.name for column in self.columns), row, strict=True))

    def feature_names(self) -> list[str]:
        """One name for each of the d values."""
        names: list[str] = []
        for column in self.columns:
            if isinstance(column, NumericColumn):
                names.append(column.name)
            else:
                names += [f"{column.name}={value}" for value in column.vocabulary]
                names += [f"{column.name}=?"] * int(column.has_gap_category)
        return names

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "columns": [asdict(column) for column in self.columns]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TableEncoder:
        columns: list[NumericColumn | CategoricalColumn] = []
        for one in state["columns"]:
            if one["type"] == "numeric":
                columns.append(NumericColumn(**one))
            else:
                columns.append(CategoricalColumn(**{**one, "vocabulary": tuple(one["vocabulary"])}))
        return cls(columns)


def _width(column: NumericColumn | CategoricalColumn) -> int:
    return 1 if isinstance(column, NumericColumn) else column.width


def _numeric_fill(values: NDArray[Any], impute: Impute | None) -> float | None:
    if impute is None:
        return None
    present = values[~np.isnan(values)]
    if impute.numeric == "zero" or present.size == 0:
        return 0.0
    return float(present.mean() if impute.numeric == "mean" else np.median(present))


def _categorical(name: str, codes: NDArray[Any], categories: Sequence[str], impute: Impute | None) -> CategoricalColumn:
    counts = np.bincount(codes[codes >= 0], minlength=len(categories))
    vocabulary = tuple(value for value, count in zip(categories, counts, strict=True) if count)
    if impute is None:
        return CategoricalColumn(name, vocabulary, None)
    if impute.categorical == "category":
        return CategoricalColumn(name, vocabulary, None, has_gap_category=bool((codes < 0).any()))
    return CategoricalColumn(name, vocabulary, categories[int(counts.argmax())] if vocabulary else "")


def _numbers(column: NumericColumn, values: NDArray[np.float64]) -> NDArray[np.float32]:
    gaps = np.isnan(values)
    if gaps.any():
        if column.fill is None:
            raise ValueError(
                f'row {int(gaps.argmax())} has no value in "{column.name}", and the model was trained without impute'
            )
        values = np.where(gaps, column.fill, values)
    return values.astype(np.float32)[:, None]


def _one_hot(column: CategoricalColumn, values: Sequence[str | None]) -> NDArray[np.float32]:
    place = {value: position for position, value in enumerate(column.vocabulary)}
    block = np.zeros((len(values), column.width), np.float32)
    for row, value in enumerate(values):
        if value is None and column.has_gap_category:
            block[row, -1] = 1.0
            continue
        position = place.get(column.fill if value is None and column.fill is not None else value or "")
        if position is not None:
            block[row, position] = 1.0
    return block


def _join(blocks: Sequence[NDArray[np.float32]], rows: int) -> Tensor:
    return torch.from_numpy(np.concatenate(blocks, axis=1) if blocks else np.zeros((rows, 0), np.float32))


def _to_number(column: NumericColumn, value: Any, row: int) -> float:
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f'row {row}: "{column.name}" must be a number, got {value!r}') from None


def _to_category(value: Any) -> str | None:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Inputs of n samples on the CPU: (n, d), (n, C, H, W) or padded (n, T, F). Pixels stay uint8 until used."""

    x: Tensor
    lengths: Tensor | None = None
    """(n,) true lengths of padded sequences; None when all fill T."""


def as_float(x: Tensor) -> Tensor:
    """uint8 pixels to float32 in [0, 1]; anything else as it is."""
    return x.to(torch.float32).div_(255.0) if x.dtype == torch.uint8 else x


class ImageEncoder:
    """Images of one size, uint8 (n, C, H, W)."""

    kind = "images"

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape

    def encode(self, inputs: ImageInputs | ArrayInputs, index: Index) -> Encoded:
        """Copy the chosen images out of the (memory-mapped) dataset; uint8 arrays lie as (n, C, H, W) already."""
        if isinstance(inputs, ArrayInputs):
            values = np.ascontiguousarray(inputs.values[index])
            return Encoded(torch.from_numpy(values).reshape(len(index), *self.shape))
        pixels = np.ascontiguousarray(inputs.pixels[index])
        return Encoded(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous())

    def parse(self, x: Any) -> Encoded:
        """PIL images, uint8 arrays 0..255 or floats in [0, 1]: one or many, resized to the trained size.

        Raises ValueError for another number of channels or values out of range.
        """
        if isinstance(x, np.ndarray) or _is_nested_numbers(x):
            images = _split_images(np.asarray(x), self.shape)
        elif isinstance(x, Sequence):
            images = [part for one in x for part in self._one(one)]
        else:
            images = self._one(x)
        return Encoded(torch.stack([_to_tensor(image, self.shape) for image in images]))

    def _one(self, image: Any) -> list[NDArray[Any]]:
        if hasattr(image, "convert"):  # a PIL image, told by what it can do: PIL need not be imported for arrays
            from trainkit.data.decoding import to_pixels

            # As at intake: upright by the EXIF tag, transparency on white. Only then grey from colour, or the reverse.
            pixels = to_pixels(image)
            if self.shape[0] == 1 and pixels.shape[2] == 3:
                pixels = to_pixels(image_of(pixels).convert("L"))
            return [np.repeat(pixels, 3, axis=2) if self.shape[0] == 3 and pixels.shape[2] == 1 else pixels]
        return _split_images(np.asarray(image), self.shape)

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "shape": list(self.shape)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ImageEncoder:
        channels, height, width = state["shape"]
        return cls((channels, height, width))


class ArrayEncoder:
    """Numeric arrays (n, ...) as float32; `shape` is the sample's shape for the model."""

    kind = "arrays"

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def encode(self, inputs: ArrayInputs, index: Index) -> Encoded:
        """(n, ...) float32."""
        return self._tensor(np.ascontiguousarray(inputs.values[index]))

    def parse(self, x: Any) -> Encoded:
        """One sample or many, as nested lists or an array. Raises ValueError for another number of features."""
        values = np.asarray(x)
        if values.dtype == object or values.dtype.kind not in "biuf":
            raise ValueError("inputs must be numbers, all samples of one length")
        size = int(np.prod(self.shape))
        single = values.ndim <= 1 or values.shape in (self.shape, self.shape[1:])
        if single and values.size == size:
            values = values[None]
        elif values.ndim == 1 and size == 1:
            values = values[:, None]
        if values.ndim < 2 or values[0].size != size:
            got = values[0].size if values.ndim > 1 else values.size
            raise ValueError(f"each sample has {size} numbers (shape {list(self.shape)}), got {got}")
        return self._tensor(values)

    def _tensor(self, values: NDArray[Any]) -> Encoded:
        tensor = torch.from_numpy(values.astype(np.float32))
        return Encoded(tensor.reshape(len(values), *self.shape))

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "shape": list(self.shape)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ArrayEncoder:
        return cls(tuple(state["shape"]))


class SequenceEncoder:
    """Sequences of F values a step, padded with zeros to the longest of the batch at hand."""

    kind = "sequences"

    def __init__(self, features: int, fixed: int | None) -> None:
        self.features = features
        self.fixed = fixed
        """The one length that the model reads (mlp, linear); None when any length will do."""

    def encode(self, inputs: SequenceInputs, index: Index) -> Encoded:
        """(n, T, F) float32 and lengths."""
        starts, ends = inputs.offsets[:-1][index], inputs.offsets[1:][index]
        return self._pad([inputs.values[a:b] for a, b in zip(starts, ends, strict=True)])

    def parse(self, x: Any) -> Encoded:
        """One sequence (T, F), or many of different lengths; (T,) is taken as (T, 1) where F is 1.

        Raises ValueError for another F or an empty sequence.
        """
        many = isinstance(x, np.ndarray) and x.ndim == 3
        if not many:
            many = isinstance(x, Sequence) and len(x) > 0 and np.ndim(_first(x)) == (2 if self.features > 1 else 1)
            many = many or (isinstance(x, Sequence) and len(x) > 0 and np.ndim(_first(x)) == 2)
        sequences = [np.asarray(one, np.float32) for one in (x if many else [x])]
        sequences = [one[:, None] if one.ndim == 1 else one for one in sequences]
        for one in sequences:
            if one.ndim != 2 or one.shape[1] != self.features or len(one) == 0:
                raise ValueError(f"a sequence has shape (T, {self.features}) with T >= 1, got {one.shape}")
            if self.fixed is not None and len(one) != self.fixed:
                raise ValueError(f"this model reads sequences of {self.fixed} steps, got {len(one)}")
        return self._pad(sequences)

    def _pad(self, sequences: Sequence[NDArray[Any]]) -> Encoded:
        lengths = np.array([len(one) for one in sequences], np.int64)
        x = np.zeros((len(sequences), int(lengths.max(initial=0)), self.features), np.float32)
        for row, one in zip(x, sequences, strict=True):
            row[: len(one)] = one
        equal = lengths.size == 0 or bool((lengths == lengths[0]).all())
        return Encoded(torch.from_numpy(x), None if equal else torch.from_numpy(lengths))

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "features": self.features, "fixed": self.fixed}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> SequenceEncoder:
        return cls(state["features"], state["fixed"])


Encoder = ImageEncoder | ArrayEncoder | SequenceEncoder | TableEncoder
_KINDS: dict[str, Any] = {one.kind: one for one in (ImageEncoder, ArrayEncoder, SequenceEncoder, TableEncoder)}


def fit_encoder(spec: JobSpec, data: Dataset, train: Index) -> Encoder:
    """The encoder for this dataset; vocabularies and fill values come from the training part alone."""
    inputs, sample = data.inputs, sample_of(spec, data.facts)
    if isinstance(inputs, TableInputs):
        impute = next((step for step in spec.preprocess if isinstance(step, Impute)), None)
        return TableEncoder.fit(inputs, feature_columns(spec, data.facts), impute, train)
    if isinstance(inputs, ImageInputs):
        _, height, width, channels = inputs.pixels.shape
        return ImageEncoder((channels, height, width))
    if isinstance(inputs, SequenceInputs):
        steps, features = sample.shape
        return SequenceEncoder(features, None if spec.model.kind in ("lstm", "gru") else steps)
    if inputs.values.dtype == np.uint8 and sample.form == "image":
        channels, height, width = sample.shape
        return ImageEncoder((channels, height, width))
    return ArrayEncoder(sample.shape)


def encode(encoder: Encoder, inputs: Any, index: Index) -> Encoded:
    """`encoder.encode`, for whichever pair of encoder and inputs belongs together."""
    encoded: Encoded | Tensor = encoder.encode(inputs, index)
    return encoded if isinstance(encoded, Encoded) else Encoded(encoded)


def parse(encoder: Encoder, x: Any) -> Encoded:
    """`encoder.parse` of what a client sends."""
    parsed: Encoded | Tensor = encoder.parse(x)
    return parsed if isinstance(parsed, Encoded) else Encoded(parsed)


def encoder_from_state(state: dict[str, Any]) -> Encoder:
    """Rebuild an encoder from its JSON state."""
    encoder: Encoder = _KINDS[state["kind"]].from_state(state)
    return encoder


def _first(x: Sequence[Any]) -> Any:
    return x[0]


def _is_nested_numbers(x: Any) -> bool:
    while isinstance(x, list | tuple) and x:
        x = x[0]
    return isinstance(x, int | float)


def _split_images(values: NDArray[Any], shape: tuple[int, int, int]) -> list[NDArray[Any]]:
    """One or many images in any usual layout, as a list of (H, W, C)."""
    channels, height, width = shape
    if values.dtype == object or values.dtype.kind not in "biuf":
        raise ValueError("images must be arrays of numbers, all of one size")
    if values.ndim in (1, 2) and values.shape[-1] == channels * height * width and values.shape != (height, width):
        values = values.reshape(-1, *shape)
    if values.ndim == 2 and channels == 1:
        return [values[..., None]]
    if values.ndim == 3 and channels == 1 and values.shape[-1] != 1 and values.shape[0] != 1:
        return [one[..., None] for one in values]
    if values.ndim == 3:
        values = values[None]
    if values.ndim != 4 or channels not in (values.shape[1], values.shape[3]):
        raise ValueError(f"images have {channels} channels and {height} x {width} pixels, got an array {values.shape}")
    if values.shape[1:] == shape or values.shape[3] != channels:
        values = values.transpose(0, 2, 3, 1)
    return list(values)


def image_of(pixels: NDArray[np.uint8]) -> Any:
    """The PIL image of colour pixels (H, W, 3)."""
    from PIL import Image

    return Image.fromarray(pixels)


def _to_tensor(image: NDArray[Any], shape: tuple[int, int, int]) -> Tensor:
    """(H, W, C) of any size to (C, H, W) of the trained size; uint8 stays uint8."""
    channels, height, width = shape
    if image.shape[-1] != channels:
        raise ValueError(f"images have {channels} channels, got {image.shape[-1]}")
    if image.dtype.kind in "iub":
        if image.size and (image.min() < 0 or image.max() > 255):
            raise ValueError("whole-number pixels lie in 0..255")
        image = image.astype(np.uint8)
    else:
        if image.size and not (image.min() >= 0 and image.max() <= 1):
            raise ValueError("pixels given as floats lie in [0, 1]; whole numbers lie in 0..255")
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
