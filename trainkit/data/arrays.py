"""NumPy files: NPZ with X and y (whole or in parts), a single NPY, and sequences in NPZ form; no pickles."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.archive import UNREADABLE, entries, is_archive, safe_name
from trainkit.data.dataset import (
    ArrayInputs,
    Dataset,
    SequenceInputs,
    class_targets,
    is_one_hot,
    make_dataset,
)
from trainkit.data.errors import DataError, data_error
from trainkit.data.layout import channels_first
from trainkit.data.limits import check_expansion, check_memory
from trainkit.data.reasons import damage_reason
from trainkit.data.zips import zip_entries
from trainkit.spec.read_options import DEFAULT_READ_OPTIONS, ReadOptions, TargetTask

PARTS = (("train", 0), ("val", 1), ("validation", 1), ("test", 2))
ARRAY_COPIES = 4
"""Peak memory of arrays over their own size, measured: parts joined, then copies of blocks for the report."""
NUMPY = b"\x93NUMPY"
KNOWN = "X and y; or X_train, y_train, X_val, y_val, X_test, y_test; or values, offsets and y for sequences"


def read_arrays(
    path: Path, *, sequences: bool = False, reading: ReadOptions = DEFAULT_READ_OPTIONS
) -> tuple[Dataset, dict[str, Any]]:
    """Return (dataset, details for the report). Raises DataError naming the array."""
    arrays = load_npz(path)
    details: dict[str, Any] = {
        "arrays": {name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in arrays.items()}
    }
    if "values" in arrays and "offsets" in arrays:
        y = arrays.get("y")
        return _ragged(arrays, reading), {**details, **_target_details(y, reading.task)}
    x, y, split = _joined(arrays)
    details |= _target_details(y, reading.task)
    if sequences or "lengths" in arrays:
        return _padded(x, y, split, arrays, reading), details
    _refuse_not_numeric("X", x)
    x, channels, layout = channels_first(x, reading.channels)
    targets, classes = (None, None) if y is None else class_targets(y, task=reading.task)
    dataset = make_dataset("arrays", ArrayInputs(x), targets, classes, split, channels=channels)
    return dataset, {**details, **({} if layout is None else {"layout": layout})}


def _target_details(y: NDArray[Any] | None, task: TargetTask | None) -> dict[str, Any]:
    """Return what the report says of targets of several columns."""
    if y is None or y.ndim != 2 or y.shape[1] < 2 or y.dtype.kind not in "biuf":
        return {}
    if is_one_hot(y):
        return {} if task == "regression" else {"one_hot": y.shape[1]}
    return {} if task is not None or ((y != 0) & (y != 1)).any() else {"multi_label": y.shape[1]}


def load_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays, by name, of an NPZ or of a folder or tar of NPY files, or `{"X": array}` of one NPY.

    Raises DataError; object arrays (pickles) are refused.
    """
    where = path.name
    try:
        if path.is_dir() or not _is_numpy(path):
            arrays: dict[str, NDArray[Any]] = {}
            for entry in entries(path):
                where = entry.name
                if entry.name.endswith(".npy"):
                    _check_header(io.BytesIO(entry.data), len(entry.data), where)
                    arrays[PurePosixPath(entry.name).stem] = np.load(io.BytesIO(entry.data), allow_pickle=False)
                    _check_size(sum(array.nbytes for array in arrays.values()), path.name)
            return arrays
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                _check_header(file, path.stat().st_size, where)
            _check_size(path.stat().st_size, where)
            return {"X": np.load(path, allow_pickle=False)}
        listed = zip_entries(path)
        for info in listed:
            where = safe_name(info.filename)
        where = path.name
        _check_size(sum(info.file_size for info in listed), where)
        with zipfile.ZipFile(path) as bundle:
            for info in listed:
                where = safe_name(info.filename)
                with bundle.open(info) as file:
                    if file.read(len(NUMPY)) == NUMPY:  # whatever its name is
                        file.seek(0)
                        _check_header(file, info.file_size, where)
        arrays = {}
        with np.load(path, allow_pickle=False) as archive:
            for where in archive.files:
                array = archive[where]
                if isinstance(array, np.ndarray):  # a member that is not .npy is returned as bytes
                    arrays[PurePosixPath(where).name] = array
        return arrays
    except DataError:
        raise
    except (*UNREADABLE, KeyError, SyntaxError, TypeError, tokenize.TokenError) as error:
        if "pickle" in str(error) or "Object arrays" in str(error):
            hint = "Save numbers or text with a plain dtype, not dtype=object."
            raise data_error("pickle", "the array holds Python objects, which are not supported", where, hint) from None
        raise data_error(
            "damaged_array", f"not readable: {damage_reason(error)}", where, "Save it again with numpy.savez."
        ) from None


def _check_size(size: int, where: str) -> None:
    """Raise DataError for arrays of too many bytes, by themselves or for the size of their file."""
    check_expansion(size, where, "the arrays")
    check_memory(ARRAY_COPIES * size, where, "the arrays")


def _check_header(file: Any, size: int, where: str) -> None:
    """Raise DataError for an array whose header announces other bytes than the file has: NumPy makes room for them first."""
    version = np.lib.format.read_magic(file)
    # version 3.0 is 2.0 with names of fields in UTF-8
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    needed = math.prod(shape) * kind.itemsize
    if not kind.hasobject and needed != size - file.tell():
        message = f"its header announces {needed} bytes, and {size - file.tell()} follow"
        raise data_error("damaged_array", message, where, "Save it again with numpy.savez.")


def _is_numpy(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(6)
    if start != NUMPY and not zipfile.is_zipfile(path) and not is_archive(path):
        raise data_error(
            "not_numpy", "the file is not a NumPy array", path.name, "Save it with numpy.savez or numpy.save."
        )
    return start == NUMPY or zipfile.is_zipfile(path)


def _joined(arrays: dict[str, NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]:
    """Return (X, y, split) of whole arrays or of concatenated parts."""
    lower = {name.lower(): array for name, array in arrays.items()}
    if "x" in lower:
        return lower["x"], lower.get("y"), lower.get("split")
    xs, ys, split = [], [], []
    for name, code in PARTS:
        x = lower.get(f"x_{name}")
        if x is None:
            continue
        y = lower.get(f"y_{name}")
        if y is None or not x.ndim or not y.ndim or len(y) != len(x):
            message = f"X_{name} has shape {x.shape}, y_{name} {'is missing' if y is None else f'has {y.shape}'}"
            raise data_error("unequal_lengths", message, f"y_{name}", "Give one target in y for each sample of X.")
        xs.append(x)
        ys.append(y)
        split.append(np.full(len(x), code, np.int8))
    if not xs:
        found = ", ".join(arrays) or "nothing"
        raise data_error("unknown_arrays", f"no array has a known name; found {found}", "", f"Name them {KNOWN}.")
    if len({x.shape[1:] for x in xs}) > 1:
        raise data_error(
            "unequal_shapes", f"the samples of the parts differ in shape: {[x.shape[1:] for x in xs]}", "X"
        )
    if len({y.shape[1:] for y in ys}) > 1 or len({y.dtype.kind in "USO" for y in ys}) > 1:
        raise data_error("unequal_shapes", "the targets of the parts differ in shape or type", "y")
    return np.concatenate(xs), np.concatenate(ys), np.concatenate(split)


def _ragged(arrays: dict[str, NDArray[Any]], reading: ReadOptions) -> Dataset:
    values, offsets, y = arrays["values"], arrays["offsets"], arrays.get("y")
    _refuse_not_numeric("values", values)
    whole = offsets.ndim == 1 and offsets.dtype.kind in "iu"
    # signed before the difference: falling unsigned offsets would wrap around
    steps = np.diff(offsets.astype(np.int64)) if whole else np.array([-1])
    if (
        not whole
        or values.ndim != 2
        or len(offsets) < 2
        or offsets[0] != 0
        or offsets[-1] != len(values)
        or (steps < 1).any()
    ):
        hint = "values must be (sum of T, F); offsets must start at 0, increase, and end at len(values)."
        raise data_error("bad_offsets", "the offsets do not cut the values into sequences", "offsets", hint)
    return _sequences(values, offsets, y, arrays.get("split"), reading)


def _padded(
    x: NDArray[Any],
    y: NDArray[Any] | None,
    split: NDArray[Any] | None,
    arrays: dict[str, NDArray[Any]],
    reading: ReadOptions,
) -> Dataset:
    _refuse_not_numeric("X", x)
    if x.ndim == 2:
        x = x[:, :, None]
    if x.ndim != 3:
        raise data_error("bad_shape", f"sequences must be (n, T, F); X is {x.shape}", "X")
    lengths = arrays.get("lengths", np.full(len(x), x.shape[1]))
    if (
        lengths.dtype.kind not in "iu"
        or lengths.shape != (len(x),)
        or lengths.min(initial=1) < 1
        or lengths.max(initial=1) > x.shape[1]
        or not len(x)
    ):
        raise data_error("bad_lengths", f"lengths must hold {len(x)} numbers from 1 to {x.shape[1]}", "lengths")
    values = np.concatenate([row[:length] for row, length in zip(x, lengths.astype(int), strict=True)])
    return _sequences(values, np.concatenate([[0], np.cumsum(lengths)]), y, split, reading)


def _sequences(
    values: NDArray[Any],
    offsets: NDArray[Any],
    y: NDArray[Any] | None,
    split: NDArray[Any] | None,
    reading: ReadOptions,
) -> Dataset:
    if reading.channels is not None:
        raise data_error("bad_shape", "sequences have no axis of channels", "channels", "Leave `channels` out.")
    targets, classes = (None, None) if y is None else class_targets(y, task=reading.task)
    inputs = SequenceInputs(values.astype(np.float32), offsets.astype(np.int64))
    return make_dataset("sequences", inputs, targets, classes, split)


def _refuse_not_numeric(name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind not in "biuf" or array.ndim < 2:
        raise data_error(
            "not_numeric", f"{name} is {array.dtype} of shape {array.shape}", name, "Give numbers (n, ...)."
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise data_error(
            "not_finite", f"{name} holds NaN or infinity", f"{name}[{row}]", "Remove or fill those samples."
        )
