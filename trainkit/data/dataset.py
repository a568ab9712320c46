"""The prepared form of a dataset: immutable arrays, memory-mapped from disk, and facts about them."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel

from trainkit.data.errors import data_error
from trainkit.data.layout import Layout, channels_first
from trainkit.data.table.table_format import SequenceTable, TableFormat
from trainkit.data.text import storable
from trainkit.data.value_range import measure_value_ranges
from trainkit.spec.facts import FEW_VALUES, MOST_CATEGORIES, MOST_CATEGORY_CHARACTERS, ColumnFacts, DatasetFacts
from trainkit.spec.read_options import TargetTask
from trainkit.spec.synonyms import nearest
from trainkit.spec.value_range import ValueRange

PARTS = ("train", "validation", "test")
PART_NAMES = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2, "testing": 2}
"""Names of folders and column values -> code of the part."""
FORMAT = 2
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ArrayInputs:
    """(n, d) or (n, ...) of any numeric type."""

    values: NDArray[Any]


@dataclass(frozen=True, slots=True)
class SequenceInputs:
    """float32 (sum of T_i, F); sequence i is rows offsets[i] to offsets[i + 1]."""

    values: NDArray[np.float32]
    offsets: NDArray[np.int64]
    table: SequenceTable | None = None
    """The table that they were read from."""


@dataclass(frozen=True, slots=True)
class Column:
    """float64 with NaN for missing, or int32 codes into `categories` with -1 for missing.

    Dates are float64 seconds since 1970 (UTC).
    """

    values: NDArray[Any]
    categories: tuple[str, ...] | None = None
    texts: tuple[str, ...] | None = None
    """How the file writes the different numbers, in ascending order: 1.0, +2; None: as whole numbers."""
    is_date: bool = False

    def take(self, rows: NDArray[np.int64]) -> Column:
        """Return the column of some of the rows."""
        values, texts = np.asarray(self.values), self.texts
        if texts is not None:
            numbers = np.unique(values)  # NaN comes last, and has no text
            kept = np.isin(numbers[: len(texts)], values[rows])
            texts = tuple(text for text, keep in zip(texts, kept.tolist(), strict=True) if keep)
        return Column(values[rows], self.categories, texts, self.is_date)


@dataclass(frozen=True, slots=True)
class TableInputs:
    """Columns of equal length by name, in the file's order."""

    columns: dict[str, Column]
    format: TableFormat | None = None
    """How they were read; None for columns that were made in memory."""


@dataclass(frozen=True, slots=True)
class ImageInputs:
    """uint8 (n, H, W, C), all of one size."""

    pixels: NDArray[np.uint8]
    columns: TableInputs | None = None
    """What the table of an `image_table` says of each image beside its label; None where it says nothing more."""


Inputs = ImageInputs | ArrayInputs | SequenceInputs | TableInputs


def table_of(inputs: Inputs) -> TableInputs | None:
    """Return the columns of a table, or those beside images; None where there are none."""
    return inputs if isinstance(inputs, TableInputs) else inputs.columns if isinstance(inputs, ImageInputs) else None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Inputs, targets and predefined parts of n samples.

    `targets`: (n,) int64 class index, or (n,) or (n, k) float64, or None (tables: the target is a column).
    `split`: (n,) int8 with 0 train, 1 validation, 2 test; None when the data ship no parts.
    """

    facts: DatasetFacts
    inputs: Inputs
    targets: NDArray[Any] | None = None
    split: NDArray[np.int8] | None = None

    @classmethod
    def from_arrays(
        cls,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        classes: Sequence[str] | None = None,
        split: ArrayLike | None = None,
        channels: Layout | None = None,
        task: TargetTask | None = None,
    ) -> Dataset:
        """A dataset of kind `arrays` from X (n, ...) and y (n,) or (n, k).

        Text, boolean, whole-number or one-hot y are classes, in sorted order unless `classes` names them by index.
        Floats, and whole numbers of more than 20 different values with fewer than ten samples each, are numbers to
        predict; `task` decides otherwise. Images are (n, C, H, W) or (n, H, W, C), by `channels` or as detected.
        Raises DataError for unequal lengths or values that are not numbers.
        """
        values = np.asarray(X)
        if values.dtype == object or values.dtype.kind not in "biuf" or values.ndim < 2:
            raise data_error(
                "not_numeric", f"X is {values.dtype} of shape {values.shape}", "X", "Give numbers (n, ...)."
            )
        values, layout, _ = channels_first(values, channels)
        targets, names = (None, None) if y is None else class_targets(np.asarray(y), classes, task)
        parts = None if split is None else np.asarray(split)
        return make_dataset("arrays", ArrayInputs(values), targets, names, parts, channels=layout)

    def image_value_ranges(self) -> tuple[ValueRange, ...] | None:
        """Return (low, high) of each channel, measured now if the facts do not have them; None without images."""
        if self.facts.value_ranges is not None:
            return self.facts.value_ranges
        return _value_ranges(self.inputs)

    def with_target(self, column: str) -> Dataset:
        """The same table with `targets` taken from a column: class indices, or float64 numbers.

        Text, and whole numbers of at most 20 different values, are classes. The column stays among the inputs, and
        `facts.target` names it. Raises DataError for an unknown column, one with gaps, or data that are no table.
        """
        if not isinstance(self.inputs, TableInputs):
            raise data_error("not_a_table", f"a dataset of kind {self.facts.kind} has no columns", column)
        facts = self.facts.column(column)
        if facts is None:
            hint = nearest(column, self.inputs.columns) or f"Columns: {', '.join(list(self.inputs.columns)[:30])}."
            raise data_error("missing_column", f'there is no column "{column}"', column, hint)
        if facts.missing:
            message = f"{facts.missing} rows have no value in the target column"
            raise data_error("missing_values", message, column, "Remove those rows, or choose another target.")
        source = self.inputs.columns[column]
        values = np.asarray(source.values)
        targets: NDArray[Any]
        classes: tuple[str, ...] | None = None
        if source.categories is not None:
            targets, classes = values.astype(np.int64), source.categories
        elif facts.discrete and facts.unique <= FEW_VALUES:
            targets, classes = number_classes(source, values)
        else:
            targets = values.astype(np.float64)
        return make_dataset(self.facts.kind, self.inputs, targets, classes, self.split, target=column)

    def save(self, folder: str | Path, *, ready: Mapping[str, Path] | None = None) -> None:
        """Write the prepared form atomically: the folder is complete or does not exist.

        `ready` maps names of arrays to .npy files on the same disk, which are moved instead of copied.
        """
        folder = Path(folder)
        part = folder.with_name(folder.name + f".{os.getpid()}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        meta: dict[str, Any] = {"format": FORMAT, "facts": self.facts.model_dump(mode="json"), "arrays": []}
        try:
            for name, array in self._arrays(meta):
                if ready and name in ready:
                    ready[name].rename(part / f"{name}.npy")
                else:
                    np.save(part / f"{name}.npy", array, allow_pickle=False)
            (part / "meta.json").write_text(json.dumps(meta))
            if folder.exists():
                shutil.rmtree(folder)
            part.rename(folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise

    def _arrays(self, meta: dict[str, Any]) -> list[tuple[str, NDArray[Any]]]:
        inputs = self.inputs
        arrays: list[tuple[str, NDArray[Any]]] = []
        table = inputs if isinstance(inputs, TableInputs) else None
        if isinstance(inputs, ImageInputs):
            arrays.append(("pixels", inputs.pixels))
            table = inputs.columns
        elif isinstance(inputs, ArrayInputs):
            arrays.append(("values", inputs.values))
        elif isinstance(inputs, SequenceInputs):
            arrays += [("values", inputs.values), ("offsets", inputs.offsets)]
            meta["sequence_table"] = None if inputs.table is None else inputs.table.model_dump(mode="json")
        if table is not None:
            meta["columns"] = [
                {"name": name, "categories": column.categories, "texts": column.texts, "is_date": column.is_date}
                for name, column in table.columns.items()
            ]
            meta["table_format"] = None if table.format is None else table.format.model_dump(mode="json")
            arrays += [(f"column-{i}", column.values) for i, column in enumerate(table.columns.values())]
        if self.targets is not None:
            arrays.append(("targets", self.targets))
        if self.split is not None:
            arrays.append(("split", self.split))
        meta["arrays"] = [name for name, _ in arrays]
        return arrays

    @classmethod
    def load(cls, folder: str | Path) -> Dataset:
        """Open a prepared form, memory-mapped. Raises DataError when it is not one, OSError when the disk refuses."""
        folder = Path(folder)
        try:
            meta = json.loads((folder / "meta.json").read_text())
            facts = DatasetFacts.model_validate(meta["facts"])
            if meta["format"] != FORMAT:
                raise ValueError(f"its format is {meta['format']}, and this version reads {FORMAT}")
            table_format = _stored(TableFormat, meta.get("table_format"))
            sequence_table = _stored(SequenceTable, meta.get("sequence_table"))
            arrays = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in meta["arrays"]
            }
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, EOFError) as error:
            hint = "Prepare the dataset again."
            raise data_error("not_prepared", f"not a prepared dataset: {error}", folder.name, hint) from None
        inputs: Inputs
        table: TableInputs | None = None
        if "columns" in meta:
            columns = {
                entry["name"]: Column(
                    arrays[f"column-{i}"], _names(entry["categories"]), _names(entry["texts"]), entry["is_date"]
                )
                for i, entry in enumerate(meta["columns"])
            }
            table = TableInputs(columns, table_format)
        if "pixels" in arrays:
            inputs = ImageInputs(arrays["pixels"], table)
        elif table is not None:
            inputs = table
        elif "offsets" in arrays:
            inputs = SequenceInputs(arrays["values"], arrays["offsets"], sequence_table)
        else:
            inputs = ArrayInputs(arrays["values"])
        # `values` of sequences has a row for each time step, not for each sample
        counted = {_samples(inputs), *(len(arrays[name]) for name in arrays.keys() - {"values", "offsets"})}
        if counted != {facts.samples}:
            message = f"not a prepared dataset: its arrays do not hold the {facts.samples} samples of its facts"
            raise data_error("not_prepared", message, folder.name, "Prepare the dataset again.")
        return cls(facts, inputs, arrays.get("targets"), arrays.get("split"))


def _stored(model: type[M], document: dict[str, Any] | None) -> M | None:
    return None if document is None else model.model_validate(document)


def _names(categories: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if categories is None else tuple(categories)


def class_targets(
    y: NDArray[Any], classes: Sequence[str] | None = None, task: TargetTask | None = None
) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    """(class indices, names) for text, booleans, few whole numbers and one-hot rows; (float64 numbers, None) for others.

    With `classes` given, y holds indices into it. `task` says which of the two y is. Raises DataError for an index
    outside, numbers that are not finite, and a y that is not what `task` says.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim not in (1, 2):
        raise data_error("bad_shape", f"y has shape {y.shape}", "y", "Give (n,) labels, or (n,) or (n, k) numbers.")
    if y.dtype == object and all(isinstance(label, str) for label in y.ravel().tolist()):
        y = y.astype(str)
    if y.dtype.kind == "U":
        y = np.array([storable(label) for label in y.ravel().tolist()], str).reshape(y.shape)
    if task != "regression" and is_one_hot(y) and (classes is None or len(classes) == y.shape[1]):
        return y.argmax(1).astype(np.int64), tuple(map(str, range(y.shape[1]) if classes is None else classes))
    if classes is not None:
        if y.dtype.kind not in "iub" or y.ndim != 1:
            raise data_error(
                "not_indices",
                f"y is {y.dtype} of shape {y.shape}",
                "y",
                "With `classes`, y must hold their indices.",
            )
        index = y.astype(np.int64)
        if len(index) and (index.min() < 0 or index.max() >= len(classes)):
            raise data_error(
                "class_out_of_range",
                f"y holds {int(index.min())} to {int(index.max())}, outside 0..{len(classes) - 1}",
                "y",
            )
        return index, tuple(map(str, classes))
    if task == "classification":
        y = _as_labels(y)
    are_classes = y.dtype.kind in "bUS" or (y.dtype.kind in "iu" and (task == "classification" or _are_classes(y)))
    if task != "regression" and y.ndim == 1 and are_classes:
        names, index = np.unique(y, return_inverse=True)
        shown = [
            name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
            for name in names.tolist()
        ]
        return index.reshape(-1).astype(np.int64), tuple(shown)
    if y.dtype.kind not in "fiub":
        hint = "Leave `task: regression` out." if task == "regression" else "Give whole numbers, text or floats."
        raise data_error("not_numeric", f"y is of type {y.dtype}", "y", hint)
    numbers = y.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise data_error("not_finite", f"{int((~np.isfinite(numbers)).sum())} targets are NaN or infinite", "y")
    return numbers, None


def is_one_hot(y: NDArray[Any]) -> bool:
    """Return whether each row of y (n, K), K >= 2, has a single 1 and else zeros, of any numeric type."""
    if y.ndim != 2 or y.shape[1] < 2 or not len(y) or y.dtype.kind not in "biuf":
        return False
    ones = y == 1
    return bool((ones.sum(1) == 1).all() and (ones | (y == 0)).all())


def _as_labels(y: NDArray[Any]) -> NDArray[Any]:
    """Return y (n,) as labels; floats that hold whole numbers as these. Raises DataError for what holds no classes."""
    hint = "Give one label for each sample, or one-hot rows; or leave `task: classification` out."
    if y.ndim != 1:
        message = f"y has shape {y.shape}, and its rows are not one-hot (a single 1, else 0)"
        raise data_error("not_classes", message, "y", hint)
    if y.dtype.kind != "f":
        return y
    odd = np.flatnonzero(~(np.isfinite(y) & (y == np.floor(y)) & (np.abs(y) < 2**53)))
    if len(odd):
        raise data_error("not_classes", f"y holds {y[odd[0]]:g}, which is no whole number", f"y[{odd[0]}]", hint)
    return y.astype(np.int64)


def _are_classes(y: NDArray[Any]) -> bool:
    """Return whether whole numbers are classes: at most 20 different ones, or each ten times on average."""
    different = len(np.unique(y))
    return different <= FEW_VALUES or 10 * different <= len(y)


def make_dataset(
    kind: Any,
    inputs: Inputs,
    targets: NDArray[Any] | None,
    classes: Sequence[str] | None,
    split: NDArray[Any] | None,
    *,
    target: str | None = None,
    channels: Layout | None = None,
) -> Dataset:
    """A dataset with its facts counted. Raises DataError for unequal lengths or a split of unknown parts."""
    samples = _samples(inputs)
    for name, array in (("y", targets), ("split", split)):
        entries = None if array is None else np.shape(array)[:1]
        if entries is not None and entries != (samples,):
            raise data_error(
                "unequal_lengths", f"there are {samples} inputs but {list(entries)} entries in {name}", name
            )
    if samples == 0:
        raise data_error("empty", "the dataset has no samples", "", "Upload at least one sample.")
    if isinstance(inputs, ArrayInputs) and not inputs.values.size:
        message = f"the samples of X hold no values: its shape is {inputs.values.shape}"
        raise data_error("empty", message, "X", "No side of X may be 0.")
    if split is not None:
        split = np.asarray(split)
        if split.ndim != 1:
            raise data_error(
                "bad_shape", f"the split has shape {split.shape}", "split", "Give one part for each sample, (n,)."
            )
        if split.dtype.kind in "USO":
            split = _named_parts(split)
        if not np.isin(split, (0, 1, 2)).all():
            raise data_error("unknown_part", "the split must hold 0 (train), 1 (validation) or 2 (test)", "split")
        split = split.astype(np.int8)
    facts = DatasetFacts(
        kind=kind,
        samples=samples,
        target=target,
        channels=channels,
        value_ranges=_value_ranges(inputs),
        splits=None if split is None else {part: int((split == i).sum()) for i, part in enumerate(PARTS)},
        **_target_facts(targets, classes, isinstance(inputs, TableInputs)),
        **_input_facts(inputs),
    )
    return Dataset(facts, inputs, targets, split)


def _named_parts(split: NDArray[Any]) -> NDArray[np.int8]:
    named = (part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part) for part in split.tolist())
    return np.array([PART_NAMES.get(part.lower(), -1) for part in named], np.int8)


def _samples(inputs: Inputs) -> int:
    if isinstance(inputs, ImageInputs):
        return len(inputs.pixels)
    if isinstance(inputs, ArrayInputs):
        return len(inputs.values)
    if isinstance(inputs, SequenceInputs):
        return len(inputs.offsets) - 1
    return len(next(iter(inputs.columns.values())).values) if inputs.columns else 0


def _target_facts(targets: NDArray[Any] | None, classes: Sequence[str] | None, table: bool) -> dict[str, Any]:
    if targets is None:
        return {"target_type": None if table else "none"}
    if classes is None:
        return {
            "target_type": "number",
            "target_width": 1 if targets.ndim == 1 else targets.shape[1],
            "constant_target": bool((targets == targets[:1]).all()),
        }
    counts = np.bincount(targets, minlength=len(classes))
    return {"target_type": "class", "classes": {name: int(counts[i]) for i, name in enumerate(classes)}}


def _value_ranges(inputs: Inputs) -> tuple[ValueRange, ...] | None:
    """Return (low, high) of each channel of all samples. They bound what augmentation makes; nothing is fitted to them."""
    if isinstance(inputs, ImageInputs):
        return measure_value_ranges(inputs.pixels, 3)
    if isinstance(inputs, ArrayInputs) and inputs.values.ndim in (3, 4):
        return measure_value_ranges(inputs.values, 1 if inputs.values.ndim == 4 else None)
    return None


def _input_facts(inputs: Inputs) -> dict[str, Any]:
    if isinstance(inputs, ImageInputs):
        _, height, width, channels = inputs.pixels.shape
        columns = {} if inputs.columns is None else _input_facts(inputs.columns)
        return {"input_shape": (channels, height, width), "input_dtype": "uint8", **columns}
    if isinstance(inputs, ArrayInputs):
        return {"input_shape": tuple(inputs.values.shape[1:]), "input_dtype": str(inputs.values.dtype)}
    if isinstance(inputs, SequenceInputs):
        lengths = np.diff(inputs.offsets)
        longest = int(lengths.max())
        return {"input_shape": (longest, inputs.values.shape[1]), "lengths": (int(lengths.min()), longest)}
    return {"columns": tuple(column_facts(name, column) for name, column in inputs.columns.items())}


def column_facts(name: str, column: Column) -> ColumnFacts:
    """Type, gaps, different values, and counts of the categories (or of few whole numbers)."""
    values = np.asarray(column.values)
    if column.categories is not None:
        present = values[values >= 0]
        counts = np.bincount(present, minlength=len(column.categories))
        few = _can_be_listed(column.categories)
        return ColumnFacts(
            name=name,
            type="categorical",
            missing=int((values < 0).sum()),
            unique=int((counts > 0).sum()),
            categories={c: int(counts[i]) for i, c in enumerate(column.categories)} if few else None,
        )
    present = values[~np.isnan(values)]
    numbers, counts = np.unique(present, return_counts=True)
    integer = bool(len(present)) and bool(np.isfinite(present).all()) and bool((present == np.floor(present)).all())
    listed: dict[str, int] | None = None
    if (integer or column.is_date) and len(numbers) <= MOST_CATEGORIES:
        texts = column.texts or tuple(str(int(number)) for number in numbers)
        if _can_be_listed(texts):
            listed = {text: int(count) for text, count in zip(texts, counts, strict=True)}
    return ColumnFacts(
        name=name,
        type="date" if column.is_date else "numeric",
        missing=len(values) - len(present),
        infinite=int((np.abs(present) > np.finfo(np.float32).max).sum()),
        unique=len(numbers),
        integer=integer and not column.is_date,
        categories=listed,
    )


def _can_be_listed(categories: Sequence[str]) -> bool:
    return len(categories) <= MOST_CATEGORIES and sum(map(len, categories)) <= MOST_CATEGORY_CHARACTERS


def number_classes(column: Column, values: NDArray[Any]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """(class indices, names) of some values of a column of numbers or dates: ascending, each as the file writes it."""
    present, codes = np.unique(np.asarray(values), return_inverse=True)
    if column.texts is None:
        return codes.reshape(-1).astype(np.int64), tuple(str(int(number)) for number in present.tolist())
    numbers = np.unique(np.asarray(column.values))  # NaN comes last
    places = np.searchsorted(numbers, present)
    return codes.reshape(-1).astype(np.int64), tuple(column.texts[place] for place in places.tolist())


def distinct_texts(numbers: Sequence[Any], texts: Sequence[Any]) -> tuple[str, ...] | None:
    """Return the first text of each different number, ascending; None where whole numbers are written as usual."""
    if len(set(numbers)) > MOST_CATEGORIES + 1:
        return None
    first: dict[float, str] = {}
    for number, text in zip(numbers, texts, strict=True):
        if number is not None and isinstance(text, str):
            first.setdefault(number, text)
    if len(first) > MOST_CATEGORIES or not all(math.isfinite(number) for number in first):
        return None
    ordered = sorted(first)
    shown = tuple(first[number] for number in ordered)
    usual = all(number.is_integer() and text == str(int(number)) for text, number in zip(shown, ordered, strict=True))
    return None if usual else shown


def categories_of(values: Sequence[str | None]) -> Column:
    """A categorical column of text, categories in sorted order, None as missing."""
    stored = {value: storable(value) for value in Counter(value for value in values if value is not None)}
    names = sorted(set(stored.values()))
    numbers = {name: i for i, name in enumerate(names)}
    place = {value: numbers[name] for value, name in stored.items()}
    codes = np.fromiter((-1 if value is None else place[value] for value in values), np.int32, count=len(values))
    return Column(codes, tuple(names))
