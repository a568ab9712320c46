"""Uploaded weights: a check of the header of a safetensors file, without reading the tensors."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

from trainkit.data.errors import data_error
from trainkit.spec.facts import DatasetFacts

LENGTH = 8
MOST_HEADER = 100 * 10**6
"""The format's own limit."""
BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
}
SHOWN = 2000
HINT = "Write it with safetensors.torch.save_file(model.state_dict(), path), and check that the upload was complete."


def is_weights(path: Path) -> bool:
    """Return whether the file begins like safetensors: the length of the header (uint64, little endian), then JSON."""
    with path.open("rb") as file:
        start = file.read(LENGTH + 1)
    length = int.from_bytes(start[:LENGTH], "little")
    return start[LENGTH:] == b"{" and 2 <= length <= min(MOST_HEADER, path.stat().st_size - LENGTH)


def read_weights(path: Path) -> tuple[DatasetFacts, dict[str, Any]]:
    """Return (facts, report) of a safetensors file: names, types and shapes of its tensors.

    Source: the safetensors format, https://github.com/huggingface/safetensors#format. Raises DataError for an
    invalid header, and for tensors that do not fill the rest of the file without gap or overlap.
    """
    if not path.is_file() or not is_weights(path):
        raise data_error("bad_weights", "not a safetensors file", path.name, HINT)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH), "little")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            raise data_error("bad_weights", "the header is not JSON", path.name, HINT) from None
    classes = classes_in(header.pop("__metadata__", None))
    spans, tensors = [], []
    for name, entry in header.items():
        begin, end = _span(name, entry)
        spans.append((begin, end, name))
        tensors.append({"name": name, "dtype": entry["dtype"], "shape": entry["shape"]})
    _check_spans(spans, path.stat().st_size - LENGTH - length, path.name)
    if not tensors:
        raise data_error("bad_weights", "the file holds no tensors", path.name, HINT)
    named = None if classes is None else dict.fromkeys(classes, 0)
    return DatasetFacts(kind="weights", samples=0, target_type="none", classes=named), {
        "kind": "weights",
        "detected_because": "a safetensors header",
        "samples": 0,
        "parameters": sum(math.prod(tensor["shape"]) for tensor in tensors),
        "tensors": tensors[:SHOWN],
        "tensor_count": len(tensors),
        "findings": [],
        "unreadable": [],
    }


def classes_in(metadata: Any) -> tuple[str, ...] | None:
    """Return the class of each output of the head, where the file's metadata has them: `classes`, a JSON list of names."""
    try:
        classes = json.loads(metadata["classes"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return None
    return tuple(classes) if len(set(classes)) == len(classes) else None


def _span(name: str, entry: Any) -> tuple[int, int]:
    """Return the first and last byte of a tensor. Raises DataError naming it."""
    if not isinstance(entry, dict) or entry.get("dtype") not in BITS:
        kind = entry.get("dtype") if isinstance(entry, dict) else None
        raise data_error("bad_weights", f"the tensor has an unknown dtype {str(kind)[:40]!r}", name, HINT)
    shape, offsets = _whole(entry.get("shape")), _whole(entry.get("data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2:
        raise data_error("bad_weights", "the tensor has no valid shape and data_offsets", name, HINT)
    begin, end = offsets
    needed = math.prod(shape) * BITS[entry["dtype"]] // 8
    if end - begin != needed:
        raise data_error("bad_weights", f"the tensor has {end - begin} bytes, its shape needs {needed}", name, HINT)
    return begin, end


def _whole(values: Any) -> list[int] | None:
    """Return the list if it holds only sizes or offsets, else None."""
    good = isinstance(values, list) and len(values) <= 64 and all(type(v) is int and 0 <= v < 2**63 for v in values)
    return values if good else None


def _check_spans(spans: list[tuple[int, int, str]], size: int, where: str) -> None:
    ordered = [(0, 0, where), *sorted(spans), (size, size, where)]
    for (_, end, name), (begin, _, following) in pairwise(ordered):
        if begin != end:
            what = "ends beyond the file" if end > size else f"is followed by byte {begin} of {following!r}, not {end}"
            raise data_error("bad_weights", f"the tensor's data {what}", name, HINT)
