"""What is to be predicted, as the body of a request: rows, arrays, images and files."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from trainkit_client.errors import MissingExtra

MEDIA_TYPES = {
    ".bmp": "image/bmp",
    ".csv": "text/csv",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
    ".png": "image/png",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".tsv": "text/tab-separated-values",
    ".txt": "text/csv",
    ".webp": "image/webp",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".zip": "application/zip",
}
ACCEPTED = (
    "Give a data frame, an array, an image of PIL, the path of a file, or a list of mappings, rows, images or paths."
)


@dataclass(frozen=True, slots=True)
class EncodedInputs:
    """A body and its media type."""

    content: bytes
    media_type: str


def encode_inputs(inputs: Any) -> EncodedInputs:
    """Return the request for these inputs. Raises TypeError, ValueError and OSError, which say what is wrong with them."""
    if isinstance(inputs, str | Path):
        return encode_file(Path(inputs).expanduser())
    if _is_image(inputs):
        return EncodedInputs(_png(inputs), "image/png")
    if isinstance(inputs, bytes | bytearray):
        return EncodedInputs(bytes(inputs), "image/png")  # the service looks at the bytes, and not at the kind of image
    content = json.dumps({"inputs": samples_of(inputs)}, allow_nan=False, ensure_ascii=False)
    return EncodedInputs(content.encode(), "application/json")


def encode_file(path: Path) -> EncodedInputs:
    """Return the request for a file, whose suffix says what it is."""
    if path.is_dir():
        images = sorted(child for child in path.iterdir() if child.is_file() and not child.name.startswith("."))
        return encode_inputs(images)
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    if suffix in (".npy", ".npz"):
        return encode_inputs(_saved_array(path))
    media_type = MEDIA_TYPES.get(suffix)
    if media_type is None:
        raise ValueError(
            f"{path}: files ending in {suffix!r} are not read. Known: {', '.join(MEDIA_TYPES)}, .npy, .npz."
        )
    return EncodedInputs(path.read_bytes(), media_type)


def samples_of(inputs: Any) -> list[Any]:
    """Return inputs as a list of plain samples."""
    library = type(inputs).__module__.partition(".")[0]
    if library == "pandas" and hasattr(inputs, "columns"):
        return [_plain(row) for row in inputs.to_dict(orient="records")]
    if library == "polars" and hasattr(inputs, "columns"):
        return [_plain(row) for row in inputs.to_dicts()]
    if library == "pyarrow" and hasattr(inputs, "to_pylist"):
        return [_plain(row) for row in inputs.to_pylist()]
    if _is_array(inputs):
        return _array_samples(inputs)
    if isinstance(inputs, Mapping):
        return [_plain(inputs)]
    if isinstance(inputs, Sequence) and not isinstance(inputs, str | bytes):
        if not inputs:
            raise ValueError(f"There is nothing to predict: the list is empty. {ACCEPTED}")
        return [_sample(item) for item in inputs]
    raise TypeError(f"Objects of type {type(inputs).__name__} cannot be predicted. {ACCEPTED}")


def _array_samples(array: Any) -> list[Any]:
    if len(array.shape) < 2:
        raise ValueError(
            f"An array must have the samples along its first axis; got the shape {tuple(array.shape)}. "
            "For one sample give x[None]."
        )
    return [_plain(row) for row in _numbers(array)]


def _sample(item: Any) -> Any:
    """Return one sample of a list: an image as base64, everything else as plain data."""
    if isinstance(item, Path):
        return base64.b64encode(item.expanduser().read_bytes()).decode()
    if isinstance(item, str):
        path = Path(item).expanduser()
        if path.suffix.lower() in MEDIA_TYPES and path.is_file():
            return base64.b64encode(path.read_bytes()).decode()
        return item  # base64 already, or the value of a single column
    if _is_image(item):
        return base64.b64encode(_png(item)).decode()
    if isinstance(item, bytes | bytearray):
        return base64.b64encode(item).decode()
    return _plain(item)


def _is_image(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "PIL" and hasattr(value, "save")


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "tolist")


def _numbers(array: Any) -> Any:
    """Return an array of numpy or torch as lists."""
    for step in ("detach", "cpu"):
        if hasattr(array, step):
            array = getattr(array, step)()
    return array.tolist()


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _saved_array(path: Path) -> Any:
    try:
        import numpy
    except ImportError:
        raise MissingExtra("numpy", "pandas", f"Reading {path.name}") from None
    loaded = numpy.load(path, allow_pickle=False)
    if isinstance(loaded, numpy.ndarray):
        return loaded
    names = [name for name in ("X", "x") if name in loaded] or (loaded.files if len(loaded.files) == 1 else [])
    if not names:
        raise ValueError(f"{path} holds the arrays {', '.join(loaded.files)}: name the samples X.")
    return loaded[names[0]]


def _plain(value: Any) -> Any:
    """Return data as JSON has them. What is missing (NaN, NaT, NA) is null."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isinf(value):
            raise ValueError("The inputs hold an infinite number, which no model can use: replace it first.")
        return None if math.isnan(value) else float(value)
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _sample(item) if key == "image" else _plain(item) for key, item in value.items()}
    if _is_array(value) or hasattr(value, "item"):
        return _plain(_numbers(value))
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)
